# SPDX-License-Identifier: Apache-2.0
"""What TensorBoard's table of hyper-parameters reads: an experiment, a session's start, a session's end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Experiment, HParamInfo, MetricInfo, MetricName, Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from leyden.core.interfaces import RunStatus

# The table knows no interruption.
STATUS = {"success": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "interrupted": "STATUS_UNKNOWN"}


def session_start(table: Mapping[str, bool | int | float | str | None], metrics: Iterable[str]) -> list[Event]:
    """Return the events that enter a run into the table.

    Args:
        table: Hyper-parameters by name.
        metrics: Tags that the table shows beside them.
    """
    experiment, start = Experiment(), SessionStartInfo(start_time_secs=time.time())
    for name, value in table.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value, kind = value, "DATA_TYPE_BOOL"
        elif isinstance(value, int | float):
            start.hparams[name].number_value, kind = float(value), "DATA_TYPE_FLOAT64"
        else:
            start.hparams[name].string_value, kind = str(value), "DATA_TYPE_STRING"
        experiment.hparam_infos.append(HParamInfo(name=name, type=kind))
    for tag in metrics:
        experiment.metric_infos.append(MetricInfo(name=MetricName(tag=tag)))
    return [
        _event(metadata.EXPERIMENT_TAG, experiment=experiment),
        _event(metadata.SESSION_START_INFO_TAG, session_start_info=start),
    ]


def session_end(status: RunStatus) -> Event:
    """Return the event that gives a run its outcome in the table.

    Args:
        status: The outcome.
    """
    end = SessionEndInfo(status=Status.Value(STATUS[status]), end_time_secs=time.time())
    return _event(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _event(tag: str, **content: Any) -> Event:
    data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data)
    value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
    return Event(wall_time=time.time(), summary=Summary(value=[value]))
