"""What has to hold between the tables of a job; each check raises ValueError with the key's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.specs.model import ModelSpec

if TYPE_CHECKING:
    from models.job import JobSpec


def check_contract(job: JobSpec) -> None:
    """Raise ValueError where the model and the contract with its data do not go together."""
    contract, model = job.contract, job.model
    if contract.n_inputs is not None and contract.n_inputs != model.inputs:
        rows = f" for {contract.n_rows} rows each" if contract.n_rows > 1 else ""
        raise ValueError(
            f"[contract] features make {contract.n_inputs:,} inputs{rows}, where [model] has inputs = {model.inputs}: "
            f"say inputs = {contract.n_inputs}"
        )
    if contract.n_inputs is None and model.inputs % contract.n_rows:
        raise ValueError(
            f"[model] inputs = {model.inputs} is no multiple of [contract.window] length = {contract.n_rows}"
        )
    if model.finds_anomalies and (contract.classes or contract.class_weight != "none"):
        raise ValueError(
            f'[contract] classes and class_weight: kind = "{model.kind}" learns no classes: leave them out (labels, '
            "where rows have some, are 0 for normal and 1 for an anomaly)"
        )
    columns = _columns_of(model)
    if columns and contract.window and model.inputs != columns * contract.n_rows:
        each = model.inputs // contract.n_rows
        raise ValueError(
            f"[model] options.columns = {columns}, where a window of [contract.window] has {contract.n_rows} rows of "
            f"{each}: say columns = {each}"
        )
    if not model.classifies and (contract.classes or contract.class_weight != "none"):
        raise ValueError(f'[contract] classes and class_weight: a model with loss = "{model.loss}" learns no classes')
    _check_classes(job)
    if isinstance(contract.class_weight, dict) and not contract.classes:
        raise ValueError("[contract] class_weight names classes: say which there are, classes = [...]")


def _check_classes(job: JobSpec) -> None:
    """Raise ValueError where the labels that the contract names are not those of the model's loss."""
    from models.nets import losses  # here alone, as the table above

    contract, model, loss = job.contract, job.model, losses.of(job.model)
    n_names, n_labels = len(contract.classes), len(contract.labels)
    if n_labels > 1 and contract.classes and loss.task == "classes":
        raise ValueError(
            "[contract] label names several columns, which is for values, and for several labels a row "
            '(loss = "multilabel"): a model of classes has one label'
        )
    if n_labels > 1 and n_labels != loss.n_columns:
        each = f' (loss = "{model.loss}" takes {loss.n_columns})' if loss.n_columns != model.outputs else ""
        raise ValueError(
            f"[contract] label names {n_labels} columns, where the model has {model.outputs} outputs{each}"
        )
    if n_names and n_names != loss.n_classes:
        two = "" if loss.n_classes == model.outputs else f' and loss = "{model.loss}" {loss.n_classes} classes'
        raise ValueError(f"[model] outputs = {model.outputs}{two}, where [contract] names {n_names} classes")
    if contract.class_weight != "none" and loss.task == "labels":
        raise ValueError(
            f'[contract] class_weight is of one class a row, and loss = "{model.loss}" has several labels a row: say '
            "pos_weight in [model.loss_options]"
        )


def _columns_of(model: ModelSpec) -> int | None:
    """Return how many numbers a row of a window has, where that is a key of the model's kind."""
    from models.nets import table  # here alone, as above

    found = getattr(table.find(model.kind).spec.of(model), "columns", None)
    return found if isinstance(found, int) else None


def check_quantise(job: JobSpec) -> None:
    """Raise ValueError where a job says of int8 what comes to nothing."""
    if job.quantise == "none":
        if job.quantise_max_loss is not None:
            raise ValueError(
                f'quantise_max_loss: {job.quantise_max_loss:g} wants quantise = "int8", without which nothing is lost'
            )
    elif job.deploy == "never":
        raise ValueError(
            f'quantise: "{job.quantise}" with deploy = "never" is of no use, as no device serves a model: leave one out'
        )


def check_strategy(job: JobSpec) -> None:
    from models.strategies.table import refusal  # here alone: it loads NumPy, and whoever reads only words does without

    if why := refusal(job):
        raise ValueError(why)


def check_tuning(job: JobSpec) -> None:
    """Raise ValueError where a part of a built-in net is to stay as it is that it has not, or all of it."""
    if not job.train.tunes and not job.train.base:
        return
    from models.nets import finetune, table  # here alone, as the others

    numpy = table.find(job.model.kind).numpy
    if numpy is not None:  # of a factory only its code knows the tensors
        finetune.plan(job.train, numpy(job.model).spec)
