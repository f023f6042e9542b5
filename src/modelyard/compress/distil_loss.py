"""The losses of distillation, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional

Tensor = torch.Tensor

_SHARP = 1e-7


def softened(probabilities: Tensor, temperature: float) -> Tensor:
    """A teacher's probabilities at a temperature: softmax(z / T) from softmax(z), rows summing to one.

    log p differs from the logits z by a constant a row, which no softmax sees; probabilities below 1e-7 are
    raised to that first.
    """
    return torch.softmax(probabilities.clamp_min(_SHARP).log() / temperature, dim=-1)


def mean_teacher(answers: list[Tensor], temperature: float) -> Tensor:
    """The soft targets of one teacher or of an ensemble: the mean of their softened probabilities [N, K]."""
    return torch.stack([softened(item, temperature) for item in answers]).mean(dim=0)


def soft_loss(logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """T^2 KL(soft || softmax(logits / T)), the mean over rows.

    Hinton et al. 2015, arXiv:1503.02531, section 2. T^2 keeps the gradient's size when the
    temperature changes: it is T (softmax(z / T) - soft) / N a logit.
    """
    student = torch.log_softmax(logits / temperature, dim=-1)
    return temperature**2 * functional.kl_div(student, soft, reduction="batchmean")


def hinton(logits: Tensor, targets: Tensor, soft: Tensor, a: float, temperature: float) -> Tensor:
    """(1 - a) * cross entropy with the labels + a * T^2 * KL with the teacher.

    Rows whose target is negative have no label: they count in the second term only, and the first is the
    mean over the others.
    """
    labelled = targets >= 0
    loss = a * soft_loss(logits, soft, temperature)
    if a < 1 and bool(labelled.any()):
        loss = loss + (1 - a) * functional.cross_entropy(logits[labelled], targets[labelled])
    return loss


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of the angle between features, the mean over rows.

    DistilBERT's third term (Sanh et al. 2019, arXiv:1910.01108).
    """
    return (1 - functional.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1)).mean()
