# SPDX-License-Identifier: Apache-2.0
"""`Trainer(compile=...)`: the same training, compiled. The backend is aot_eager, which needs no compiler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import leyden.core as L
from leyden.core.errors import MisconfigurationException, PossibleUserWarning

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
EAGER_BACKEND = {"backend": "aot_eager"}


def batches(count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)) for _ in range(count)]


class Net(L.LightningModule):
    def __init__(self, optimizer: Any = None, scheduler: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
        self.make = optimizer or (lambda p: torch.optim.AdamW(p, lr=0.01))
        self.schedule = scheduler

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.mse_loss(self.net(x), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log_dict({"double": 2 * loss, "constant": 1.0}, batch_size=4)
        return {"loss": loss, "size": len(x)}

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.parameters())
        if self.schedule is None:
            return optimizer
        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def train(model: L.LightningModule, compile: Any, epochs: int = 2, **options: Any) -> L.Trainer:
    trainer = L.Trainer(**(QUIET | {"max_epochs": epochs, "compile": compile} | options))
    trainer.fit(model, batches())
    return trainer


def close(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.allclose(v, w, atol=1e-6) for (a, v), (b, w) in pairs)


class Counting:
    """A backend that counts the graphs it is given and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_logged_values_are_those_of_eager_training(name: str) -> None:
    eager, compiled = Net(OPTIMIZERS[name]), Net(OPTIMIZERS[name])
    first, second = train(eager, False), train(compiled, EAGER_BACKEND)
    assert close(eager, compiled)
    assert first.callback_metrics.keys() == second.callback_metrics.keys()
    for key, value in first.callback_metrics.items():
        assert torch.allclose(value, second.callback_metrics[key], atol=1e-6), key


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 4}, {"gradient_clip_val": 0.1}])
def test_accumulation_and_clipping_stay_as_they_are(options: dict[str, Any]) -> None:
    eager, compiled = Net(), Net()
    train(eager, False, **options)
    train(compiled, EAGER_BACKEND, **options)
    assert close(eager, compiled)


def test_logging_breaks_no_graph() -> None:
    backend = Counting()
    trainer = train(Net(OPTIMIZERS["lbfgs"]), {"backend": backend, "fullgraph": True})
    assert len(backend.graphs) == 1
    assert float(trainer.callback_metrics["constant"]) == 1.0
    assert set(trainer.callback_metrics) == {"loss", "loss_step", "loss_epoch", "double", "constant"}


def test_a_schedule_compiles_nothing_anew_and_the_rate_stays_a_float() -> None:
    backend = Counting()
    rates = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    decay = lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)  # noqa: E731
    eager, compiled = Net(scheduler=decay), Net(scheduler=decay)
    train(eager, False)
    train(compiled, {"backend": backend}, callbacks=[Watch()])
    assert close(eager, compiled)
    assert len(backend.graphs) <= 3  # the step, and the optimiser with and without its state
    assert rates == [0.01 * 0.5**i for i in range(1, 13)]


def test_a_momentum_that_is_cycled_makes_the_optimizer_eager_and_is_said() -> None:
    cycle = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12)  # noqa: E731
    eager, compiled = Net(scheduler=cycle), Net(scheduler=cycle)
    train(eager, False)
    with pytest.warns(PossibleUserWarning, match=r"AdamW.step. runs eagerly"):
        train(compiled, EAGER_BACKEND)
    assert close(eager, compiled)


def test_checkpoints_have_the_keys_of_eager_training_and_resume_exactly(tmp_path: Any) -> None:
    class Save(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole = Net()
    train(whole, EAGER_BACKEND, callbacks=[Save()])
    saved = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    assert list(saved["state_dict"]) == list(Net().state_dict())
    assert isinstance(saved["optimizer_states"][0]["param_groups"][0]["lr"], float)
    resumed = Net()
    trainer = L.Trainer(**QUIET, max_epochs=2, compile=EAGER_BACKEND)
    trainer.fit(resumed, batches(), ckpt_path=tmp_path / "middle.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


# torch's own warning, of how it goes on behind a break
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_step_that_torch_can_not_trace_as_a_whole_still_trains() -> None:
    class Odd(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            loss = F.mse_loss(self.net(x), y)
            self.seen = [*getattr(self, "seen", []), float(loss.detach().numpy())]
            return loss

    eager, compiled = Odd(), Odd()
    train(eager, False)
    train(compiled, EAGER_BACKEND)
    assert close(eager, compiled)
    assert compiled.seen == pytest.approx(eager.seen, rel=1e-5)


def test_manual_optimization_compiles_the_optimizers() -> None:
    class Manual(Net):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer, (x, y) = self.optimizers(), batch
            optimizer.zero_grad()
            self.manual_backward(F.mse_loss(self.net(x), y))
            optimizer.step()

    backend = Counting()
    eager, compiled = Manual(), Manual()
    train(eager, False)
    trainer = train(compiled, {"backend": backend})
    assert close(eager, compiled)
    assert trainer.global_step == 12
    assert backend.graphs


def test_hooks_stay_eager_and_see_every_batch() -> None:
    seen = []

    class Watch(L.Callback):
        def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
            seen.append(torch.compiler.is_compiling())

    train(Net(), EAGER_BACKEND, callbacks=[Watch()])
    assert seen == [False] * 12


def test_a_step_that_can_not_be_compiled_as_one_graph_is_refused_if_one_graph_was_asked_for() -> None:
    class Breaks(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            torch._dynamo.graph_break()
            return super().training_step(batch, batch_idx)

    with pytest.raises(MisconfigurationException, match=r"`compile`: torch.compile can not compile `training_step`"):
        train(Breaks(), {"backend": "aot_eager", "fullgraph": True})


def test_wrong_values_are_named() -> None:
    with pytest.raises(TypeError, match="`compile` must be True, False or a dict"):
        L.Trainer(max_epochs=1, compile="inductor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"unknown keys \['engine'\]"):
        L.Trainer(max_epochs=1, compile={"engine": "aot_eager"})
