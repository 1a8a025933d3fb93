"""`Request`, which groups the models; and the loop over epochs, one for a single model and for a stack."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from toolkit import _keras
from toolkit.training import alike
from toolkit.training.alone import Alone, Heard
from toolkit.training.arrays import Feed, Table
from toolkit.training.checkpoint import RunState
from toolkit.training.checks import remember_compilation
from toolkit.training.members import Member, finalize, last_epoch
from toolkit.training.progress import LOG, Progress
from toolkit.training.stack import Stack, has_too_many_sizes

Logs = dict[str, Any]


class Engine(Protocol):
    """What trains the models of a group: `Alone` or `Stack`."""

    members: list[Member]
    steps: int  # an epoch
    reads: bool  # whether callbacks want the models to have their values after an epoch
    writes: bool  # whether callbacks may have changed them before one

    def reset(self, members: list[Member]) -> None:
        """Let the metrics of models begin anew, where a callback may look at them before an epoch."""

    def train(self, epoch: int, heard: Heard) -> list[Logs]:
        """Train an epoch; return the logs of each model."""

    def test(self) -> list[Logs]:
        """Validate; return the logs of each model."""

    def all_finite(self) -> list[bool]:
        """Say of each model whether its weights are still finite."""

    def load(self, members: list[Member]) -> None:
        """Take the values of the models that go on."""

    def store(self, members: list[Member]) -> None:
        """Give some models their values."""


@dataclass(eq=False)
class Request:
    """What `fit` or `fit_many` is to do, all of it checked."""

    members: list[Member]
    training: Table
    validation: Table | None
    checkpoint: Path | None
    many: bool = False  # models on rows of one table: a checkpoint folder a group

    def run(self) -> list[keras.callbacks.History]:
        """Train the models in groups of equal ones."""
        uploaded: dict[int, Any] = {}  # what both tables hold lies on the device once
        callbacks = [callback for member in self.members for callback in member.callbacks]
        share = all(map(alike.is_reader, callbacks))  # or a user's code might change the arrays meanwhile
        training = validation = Feed(self.training, share, uploaded)
        if self.validation not in (None, self.training):
            validation = Feed(self.validation, share, uploaded)
        groups = alike.groups(self.members, self.training)
        progress = Progress(self.members[0].settings.verbose, last_epoch(self.members), len(groups))
        try:
            for group in groups:
                self._run_group(group, training, validation, progress)
        finally:
            training.release()
            validation.release()
        return [member.model.history for member in self.members]

    def _run_group(self, group: list[Member], training: Feed, validation: Feed, progress: Progress) -> None:
        def stack(members: list[Member]) -> Engine:
            return Stack(members, training, validation)

        if len(group) > 1 and has_too_many_sizes(group):
            LOG.info("%d models alone, because their splits differ in length", len(group))
        elif len(group) > 1:
            keeper = self._keeper("models", group)
            members = group if keeper is None else keeper.stacked()[0]
            try:
                engine = stack(members) if members else None
            except Exception:
                LOG.warning("%d models alone, because a stack of them failed", len(group), exc_info=True)
            else:
                LOG.info("%d models as one stack", len(members))
                _Loop(group, engine, progress, keeper, stack).run()
                return
        for member in group:
            engine = Alone(member, training, validation)
            _Loop([member], engine, progress, self._keeper("model", [member])).run()

    def _keeper(self, kind: str, members: list[Member]) -> RunState | None:
        if self.checkpoint is None:
            return None
        folder = self.checkpoint
        tables: dict[str, Table | None] = {"": self.training}
        if self.many:
            folder /= f"{kind}-{members[0].index + 1}"
        else:
            tables["validation "] = self.validation
        return RunState(folder, members, tables)


class _Loop:
    """The epochs of a group of models that one engine trains."""

    def __init__(
        self,
        group: list[Member],
        engine: Engine | None,
        progress: Progress,
        checkpoint: RunState | None,
        make_stack: Callable[[list[Member]], Engine] | None = None,
    ) -> None:
        self.group = group
        self.engine = engine
        self.progress = progress
        self.checkpoint = checkpoint
        self.make_stack = make_stack
        self.logs: dict[Member, Logs] = {}
        steps = engine.steps if engine else 0
        self.callbacks = {member: _callback_list(member, steps) for member in group}

    def run(self) -> None:
        """Train until the last epoch, or until all models have stopped."""
        group, checkpoint, settings = self.group, self.checkpoint, self.group[0].settings
        self.progress.start(group[0].name if len(group) == 1 else f"{len(group)} models")
        for member in group:
            member.model.stop_training = False
        first = settings.initial_epoch
        active = list(group)
        if checkpoint is None:
            for member in group:
                self.callbacks[member].on_train_begin()
                first = _keras.first_epoch(member.model) or first  # BackupAndRestore sets it
        else:
            active = checkpoint.stacked()[1]
            first = checkpoint.begin(self.callbacks, self.progress.verbose)
            for member in group:
                if member not in active:
                    self._finish(member)
        if self.engine is not None and active:
            self._run_epochs(first, active)
        self.progress.close()

    def _run_epochs(self, first: int, active: list[Member]) -> None:
        settings, checkpoint = self.group[0].settings, self.checkpoint
        engine = self.engine
        assert engine is not None
        try:
            for epoch in range(first, settings.epochs):
                self._run_epoch(engine, active, epoch)
                stopped = [member for member in active if member.model.stop_training]
                going_on = [member for member in active if member not in stopped]
                due = checkpoint is not None and checkpoint.due(epoch, not going_on)
                if due or stopped:
                    engine.store(active if due else stopped)
                active = going_on
                engine = self._without_the_stopped(engine, active)
                if checkpoint is not None and due:
                    checkpoint.save(epoch, [member.index for member in engine.members])
                for member in stopped:
                    self._finish(member)
                if not active:
                    break
        finally:
            engine.store(active)
        for member in active:
            self._finish(member)

    def _run_epoch(self, engine: Engine, active: list[Member], epoch: int) -> None:
        """Do what `model.fit` does in an epoch, in its order."""
        engine.reset(active)
        for member in active:
            self.callbacks[member].on_epoch_begin(epoch)
        self.progress.begin(epoch, engine.steps)
        if engine.writes:
            engine.load(active)
        logs = dict(zip(engine.members, engine.train(epoch, self.progress.step), strict=True))
        for member in active:
            remember_compilation(member.model)
            self.logs[member] = logs[member]
        settings = self.group[0].settings
        if len(self.group[0].validation_rows) and settings.validates_after(epoch):
            self._validate(engine, active)
        checked = engine.all_finite() if settings.check_finite else [True] * len(engine.members)
        finite = dict(zip(engine.members, checked, strict=True))
        if engine.reads:
            engine.store(active)
        for member in active:
            if not finite[member] and not member.model.stop_training:
                raise FloatingPointError(
                    f"The weights of {member.name} must stay finite. Received: NaN or infinity after epoch "
                    f"{epoch + 1} (a smaller learning rate or clipnorm often helps; or check_finite=False)"
                )
            self.callbacks[member].on_epoch_end(epoch, self.logs[member])
        if self.progress.verbose:
            self.progress.end(_means([_keras.to_python(self.logs[member]) for member in active]))

    def _validate(self, engine: Engine, active: list[Member]) -> None:
        for member in active:
            self.callbacks[member].on_test_begin()
        logs = dict(zip(engine.members, engine.test(), strict=True))
        for member in active:
            test_logs = _keras.to_python(logs[member])
            self.callbacks[member].on_test_end(test_logs)
            self.logs[member] |= {f"val_{name}": value for name, value in test_logs.items()}

    def _without_the_stopped(self, engine: Engine, active: list[Member]) -> Engine:
        """Stack those that go on anew where they are few: the stopped ones cost, but so does compiling."""
        if self.make_stack is None or not active or 2 * len(active) > len(engine.members):
            return engine
        engine.store(active)
        try:
            smaller = self.make_stack(active)
        except Exception:  # nobody starts anew for that
            LOG.warning("the %d models that go on stay in their stack", len(active), exc_info=True)
            self.make_stack = None
            return engine
        LOG.info("%d models go on as one stack", len(active))
        return smaller

    def _finish(self, member: Member) -> None:
        finalize(member)
        self.callbacks[member].on_train_end(self.logs.get(member))


def _callback_list(member: Member, steps: int) -> Any:
    """Return what `model.fit` would call; History alone where there is nothing else, which spares time."""
    settings, model = member.settings, member.model
    parameters = {"verbose": settings.verbose, "epochs": settings.epochs, "steps": steps}
    if member.callbacks:
        return keras.callbacks.CallbackList(member.callbacks, add_history=True, model=model, **parameters)
    return _HistoryAlone(model, parameters)


class _HistoryAlone(keras.callbacks.History):  # type: ignore[misc]
    """A list of callbacks with a History and nothing else."""

    def __init__(self, model: keras.Model, parameters: dict[str, Any]) -> None:
        super().__init__()
        history = model.history = keras.callbacks.History()
        history.set_model(model)
        history.set_params(parameters)
        self.alone = history

    def on_train_begin(self, logs: Any = None) -> None:
        self.alone.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.alone.on_epoch_end(epoch, _keras.to_python(logs))


def _means(logs: list[Logs]) -> Logs:
    if len(logs) == 1:
        return logs[0]
    by_position = zip(*(each.values() for each in logs), strict=True)
    return {name: float(np.mean(values)) for name, values in zip(logs[0], by_position, strict=True)}
