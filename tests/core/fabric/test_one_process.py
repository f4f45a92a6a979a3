"""A loop of one's own in one process does what the same loop without Fabric does, and objects stay what they are."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import leyden.core as L
from leyden.core.errors import (
    MisconfigurationException,
    MisconfigurationRuntimeError,
    MisconfigurationTypeError,
    MisconfigurationValueError,
    PossibleUserWarning,
)
from leyden.core.fabric import is_wrapped
from leyden.core.loggers import CSVLogger

from .loops import data, net


@pytest.fixture
def fabric():
    """One process on the CPU."""
    return L.Fabric(accelerator="cpu", devices=1)


def model_and_loop():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loop_comes_to_the_same_bits_as_without_fabric(fabric, workers):
    model, optimizer = model_and_loop()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    torch.manual_seed(3)
    for _ in range(2):
        for x, y in DataLoader(data(41), 8, shuffle=True, num_workers=workers):
            optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
        schedule.step()

    other, stepped = model_and_loop()
    other, stepped = fabric.setup(other, stepped)
    schedule = torch.optim.lr_scheduler.StepLR(stepped, 1, gamma=0.5)
    loader = fabric.setup_dataloaders(DataLoader(data(41), 8, shuffle=True, num_workers=workers))
    torch.manual_seed(3)
    for _ in range(2):
        for x, y in loader:
            stepped.zero_grad()
            fabric.backward(F.mse_loss(other(x), y))
            fabric.clip_gradients(other, stepped, max_norm=0.1)
            stepped.step()
        schedule.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert optimizer.param_groups[0]["lr"] == stepped.param_groups[0]["lr"] == 0.0025


def test_a_module_keeps_its_names_and_attributes(fabric):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.width = torch.nn.Linear(2, 3), 3
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            return self.layer(x)

        def twice(self, x):
            return 2 * self(x)

    net = Net()
    model = fabric.setup(net)
    assert is_wrapped(model)
    assert not is_wrapped(net)
    assert model.module is net
    assert list(model.state_dict()) == list(net.state_dict())
    assert [name for name, _ in model.named_parameters()] == ["layer.weight", "layer.bias"]
    assert [name for name, _ in model.named_buffers()] == ["seen"]
    assert list(model.children()) == [net.layer]
    assert list(model.modules()) == [net, net.layer]
    assert (model.width, model.device) == (3, torch.device("cpu"))
    model.width, model.new = 4, 5
    assert (net.width, net.new, model.new) == (4, 5, 5)
    assert torch.equal(model.twice(torch.ones(1, 2)), 2 * net(torch.ones(1, 2)))
    assert model.eval() is model
    assert not net.training
    assert not net.layer.training
    assert not model.training
    model.train().requires_grad_(False)
    assert net.layer.training
    assert not net.layer.weight.requires_grad
    assert model.double() is model
    assert net.seen.dtype == net.layer.weight.dtype == torch.float64
    model.load_state_dict({name: torch.zeros_like(value) for name, value in net.state_dict().items()})
    assert not net.layer.weight.any()
    with pytest.raises(AttributeError, match="nowhere"):
        _ = model.nowhere


def test_a_copy_stands_by_itself(fabric):
    model, optimizer = model_and_loop()
    model, optimizer = fabric.setup(model, optimizer)
    model.mark_forward_method("get_submodule")
    averages = torch.optim.swa_utils.AveragedModel(model).eval()
    model.eval()
    x = torch.ones(2, 8)
    before = model(x)
    fabric.backward(before.sum())
    optimizer.step()
    assert torch.equal(averages(x), before)
    assert not torch.equal(model(x), before)
    assert averages.module._forward_methods == model._forward_methods


def test_an_optimizer_keeps_its_class_and_state(fabric):
    module = torch.nn.Linear(2, 1)
    own = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    model, optimizer = fabric.setup(module, own)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.optimizer is own
    assert optimizer.param_groups is own.param_groups
    fabric.backward(model(torch.ones(1, 2)).sum())
    optimizer.step()
    assert optimizer.state is own.state
    before = copy.deepcopy(own.state_dict())
    optimizer.load_state_dict(before)
    assert str(optimizer.state_dict()) == str(before)


def test_a_loader_keeps_its_length_and_leaves_the_given_one_alone(fabric):
    given = DataLoader(TensorDataset(torch.arange(10.0)), 4, shuffle=True)
    loader = fabric.setup_dataloaders(given)
    sampler = given.batch_sampler
    assert len(loader) == 3
    assert loader.batch_size == 4
    assert len(list(loader)) == len(list(loader)) == 3
    assert given.batch_sampler is sampler
    assert loader.loader is given
    first, second = fabric.setup_dataloaders(given, DataLoader(range(3)), move_to_device=False)
    assert (len(first), len(second), second.device) == (3, 3, None)


def test_a_pass_that_was_left_is_not_gone_on_with(fabric):
    loader = fabric.setup_dataloaders(DataLoader(range(6)))
    next(iter(loader))
    for batch in loader:
        if batch == 3:
            break
    assert [int(batch) for batch in loader] == list(range(6))


def test_samplers_learn_which_pass_begins(fabric):
    class Sampler(torch.utils.data.SequentialSampler):
        epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

    loader = fabric.setup_dataloaders(DataLoader(range(2), sampler=Sampler(range(2))))
    for _ in range(3):
        list(loader)
    assert Sampler.epochs == [0, 1, 2]


@pytest.mark.parametrize(
    ("precision", "inside", "outside"),
    [
        ("64-true", torch.float64, torch.float32),
        ("bf16-true", torch.bfloat16, torch.float32),
        ("bf16-mixed", torch.bfloat16, torch.float32),
    ],
)
def test_forward_and_marked_methods_run_in_the_number_format(precision, inside, outside):
    seen = []

    class Net(torch.nn.Linear):
        def forward(self, x):
            seen.append(super().forward(x).dtype)
            return {"out": super().forward(x)}

        def score(self, x):
            return self.forward(x)["out"]

    fabric = L.Fabric(accelerator="cpu", devices=1, precision=precision)
    model = fabric.setup(Net(2, 1))
    model.mark_forward_method(model.score)
    results = model(torch.ones(1, 2))["out"].dtype, model.score(torch.ones(1, 2)).dtype
    assert seen == [inside] * 2
    assert results == (outside, outside)
    with fabric.init_tensor():
        made = torch.ones(1).dtype
    assert made == (torch.float32 if precision == "bf16-mixed" else inside)
    with fabric.autocast():
        assert (model.module.weight @ model.module.weight.T).dtype == inside


def test_what_torch_compiled_runs_compiled(fabric):
    ran = []

    def backend(graph, _):
        ran.append(graph)
        return graph.forward

    module = torch.nn.Linear(2, 1)
    model = fabric.setup(torch.compile(module, backend=backend))
    assert torch.equal(model(torch.ones(1, 2)), module(torch.ones(1, 2)))
    assert len(ran) == 1
    assert list(model.state_dict()) == ["weight", "bias"]


def test_compiling_what_was_set_up_keeps_it_set_up(fabric, tmp_path):
    compiled = torch.compile(fabric.setup(torch.nn.Linear(2, 1)), backend="eager")
    assert is_wrapped(compiled)
    compiled(torch.ones(1, 2))
    fabric.save(tmp_path / "a.ckpt", {"model": compiled})
    assert list(torch.load(tmp_path / "a.ckpt")["model"]) == ["weight", "bias"]
    with fabric.no_backward_sync(compiled):
        pass
    with pytest.raises(MisconfigurationValueError, match="only once"):
        fabric.setup(compiled)


def test_gradients_are_clipped_by_norm_or_value(fabric):
    module = torch.nn.Linear(2, 1)
    model, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    fabric.backward(100 * model(torch.ones(1, 2)).sum())
    # the gradient is 100 in each of three places
    assert float(fabric.clip_gradients(model, optimizer, max_norm=1.0, norm_type=float("inf"))) == 100.0
    assert module.weight.grad.flatten().tolist() == pytest.approx([1.0, 1.0], rel=1e-5)
    assert fabric.clip_gradients(model, optimizer, clip_val=0.25) is None
    assert module.weight.grad.tolist() == [[0.25, 0.25]]
    module.weight.grad[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="non-finite"):
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
    with pytest.raises(MisconfigurationValueError, match="Only one of"):
        fabric.clip_gradients(model, optimizer, max_norm=1.0, clip_val=1.0)
    with pytest.raises(MisconfigurationValueError, match="You have to specify either"):
        fabric.clip_gradients(model, optimizer)


def test_modules_are_made_in_place_and_empty(fabric):
    with fabric.init_module(empty_init=True):
        torch.nn.Linear(2, 1)
    with fabric.init_module():
        assert torch.nn.Linear(2, 1).weight.device == fabric.device
    moved = fabric.to_device({"x": [torch.ones(1)], "name": "a"})
    assert moved == {"x": [torch.ones(1)], "name": "a"}
    layer = torch.nn.Linear(1, 1)
    assert fabric.to_device(layer) is layer


def test_collectives_of_one_process_give_back_what_they_get(fabric):
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank, fabric.node_rank) == (1, 0, 0, 0)
    assert fabric.is_global_zero
    assert torch.equal(fabric.all_gather({"x": torch.ones(2)})["x"], torch.ones(2))
    assert fabric.all_reduce([torch.tensor(2.0), 3])[1] == 3
    assert fabric.broadcast("a") == "a"
    fabric.barrier()


def test_a_function_is_launched_with_fabric_first(fabric):
    assert fabric.launch(lambda own, x, y=0: (own is fabric, x, y), 1, y=2) == (True, 1, 2)
    assert fabric.launch() is None


def test_an_overridden_run_is_launched():
    class Mine(L.Fabric):
        def run(self, x, y=0):
            return x + y, self.is_global_zero

    assert Mine(accelerator="cpu", devices=1).run(1, y=2) == (3, True)


def test_callbacks_are_called_with_what_they_take():
    calls = []

    class First:
        def on_train_end(self, loss):
            calls.append(("first", loss))

        on_odd = "no method"

    class Second:
        def on_train_end(self, **everything):
            calls.append(("second", everything))

        def on_after_setup(self, fabric, module):
            calls.append(("setup", is_wrapped(module)))

        def on_after_optimizer_step(self, strategy, optimizer):
            calls.append(("step", type(optimizer).__name__))

    fabric = L.Fabric(accelerator="cpu", devices=1, callbacks=[First(), Second()])
    module = torch.nn.Linear(1, 1)
    _, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    optimizer.step()
    fabric.call("on_train_end", loss=1, step=2)
    fabric.call("nobody_has_this")
    with pytest.warns(UserWarning, match="not callable"):
        fabric.call("on_odd")
    assert calls == [("setup", True), ("step", "SGD"), ("first", 1), ("second", {"loss": 1, "step": 2})]


def test_values_go_to_every_logger(tmp_path):
    loggers = [CSVLogger(tmp_path, name=name, version=0) for name in ("a", "b")]
    fabric = L.Fabric(accelerator="cpu", devices=1, loggers=loggers)
    assert fabric.logger is loggers[0]
    weight = torch.ones(1, requires_grad=True)
    fabric.log("loss", 2 * weight, step=3)
    fabric.log_dict({"loss": 1, "accuracy": torch.tensor(0.5)}, step=4)
    for logger in loggers:
        logger.save()
        rows = (tmp_path / logger.name / "version_0" / "metrics.csv").read_text().split()
        assert rows == ["step,epoch,loss,accuracy", "3,,2.0,", "4,,1,0.5"]
    with pytest.raises(ValueError, match="single element"):
        fabric.log("odd", torch.ones(2))


def test_scattered_parameters_are_told():
    fabric = L.Fabric(accelerator="cpu", devices=1)
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1, device="meta"))
    with pytest.warns(PossibleUserWarning, match="different devices"), pytest.raises(NotImplementedError):
        fabric.setup(model)
    assert fabric.setup(torch.nn.Linear(1, 1, device="meta"), move_to_device=False).device == torch.device("meta")


def test_wrong_objects_are_refused(fabric):
    module = torch.nn.Linear(1, 1)
    model, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    loader = fabric.setup_dataloaders(DataLoader(range(2)))
    for call, words in (
        (lambda: fabric.setup(model), "A model should be passed only once to the `setup` method"),
        (lambda: fabric.setup_module(model), "A model should be passed only once to the `setup_module` method"),
        (lambda: fabric.setup(torch.nn.Linear(1, 1), optimizer), "An optimizer should be passed only once"),
        (lambda: fabric.setup_optimizers(optimizer), "only once to the `setup_optimizers` method"),
        (lambda: fabric.setup_optimizers(), "requires at least one optimizer"),
        (lambda: fabric.setup_dataloaders(), "requires at least one dataloader"),
        (lambda: fabric.setup_dataloaders(loader), "A dataloader should be passed only once"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    for call, words in (
        (lambda: fabric.setup_dataloaders(range(3)), "Only PyTorch DataLoader"),
        (lambda: fabric.no_backward_sync(module), "You need to set up the model first"),
        (lambda: fabric.launch(1), "needs to be a callable"),
        (lambda: fabric.launch(lambda: 1), "needs to take at least one argument"),
        (lambda: model.mark_forward_method(3), "Expected a method or a string"),
    ):
        with pytest.raises(TypeError, match=words):
            call()
    with pytest.raises(ValueError, match="cannot mark the forward method itself"):
        model.mark_forward_method("forward")
    with pytest.raises(AttributeError, match="You marked 'nothing' as a forward method"):
        model.mark_forward_method("nothing")
    meta = torch.optim.SGD(torch.nn.Linear(1, 1, device="meta").parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="meta-device"):
        fabric.setup_optimizers(meta)
    with pytest.raises(MisconfigurationException, match="strategy"):
        L.Fabric(accelerator="cpu", strategy="fastest")


def test_several_processes_must_be_launched():
    fabric = L.Fabric(accelerator="cpu", devices=2)
    assert fabric.world_size == 2
    for call in (
        lambda: fabric.setup(torch.nn.Linear(1, 1)),
        lambda: fabric.setup_dataloaders(DataLoader(range(2))),
        lambda: fabric.all_reduce(torch.ones(1)),
        lambda: fabric.init_module(),
    ):
        with pytest.raises(MisconfigurationRuntimeError, match=r"you must call `\.launch\(\)`"):
            call()
    with pytest.raises(MisconfigurationTypeError, match="needs to be called with a function"):
        fabric.launch()


class Talkative(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = net()

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.layer(batch[0]), batch[1])
        self.log("loss", loss)
        self.log("hidden", loss, logger=False)
        self.log_dict({"twice": 2 * loss})
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_lightning_module_sees_fabric_for_its_trainer(tmp_path):
    logger = CSVLogger(tmp_path, name="a", version=0)
    fabric = L.Fabric(accelerator="cpu", devices=1, loggers=logger)
    module = Talkative()
    assert module.fabric is None
    model, optimizer = fabric.setup(module, module.configure_optimizers())
    loss = model.training_step(data()[:4], 0)
    module.manual_backward(loss)
    module.clip_gradients(optimizer, 0.1)
    optimizer.step()
    logger.save()
    assert (tmp_path / "a" / "version_0" / "metrics.csv").read_text().split()[0] == "step,epoch,loss,twice"
    assert module.fabric is fabric
    assert module.optimizers() is optimizer
    assert (module.logger, module.loggers, module.global_rank) == (logger, [logger], 0)
    assert module.trainer.world_size == 1
    assert torch.equal(module.all_gather(torch.ones(1)), torch.ones(1))
    with pytest.raises(AttributeError, match=r"tried to access `self\.trainer\.estimated_stepping_batches`"):
        _ = module.trainer.estimated_stepping_batches


def test_a_module_that_was_set_up_trains_under_a_trainer_afterwards(fabric, quiet):
    module = Talkative()
    fabric.setup(module, module.configure_optimizers())
    before = module.layer[0].weight.clone()
    trainer = quiet(accelerator="cpu", devices=1)
    trainer.fit(module, DataLoader(data(8), 4))
    assert module.fabric is None
    assert trainer.global_step == 2
    assert not torch.equal(module.layer[0].weight, before)


def test_a_lightning_module_is_a_callback_too():
    called = []

    class Module(Talkative):
        def on_train_epoch_end(self):
            called.append(1)

    fabric = L.Fabric(accelerator="cpu", devices=1)
    fabric.setup(Module())
    fabric.call("on_train_epoch_end")
    assert called == [1]
