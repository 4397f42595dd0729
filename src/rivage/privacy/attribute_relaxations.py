"""Attribute values as something that can be moved by gradients: hard forwards, soft backwards.

Each kind keeps logits of G guesses for n records, samples values from them, and turns the derivative of a loss by the
attribute's columns into one by the logits. See `rivage.privacy.gradient_attributes` for the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from rivage.privacy.questions import Attribute

__all__ = ["Binary", "Categorical", "Numerical", "Relaxation", "Sample", "relaxation"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of every record, and what their derivative needs.

    Args:
        columns: what goes into the model.
        index: of the values, where there are finitely many.
        soft: probability of each value (of value 1 for two), where there are finitely many.
    """

    columns: Float[Tensor, "guesses n columns"]
    index: Int64[Tensor, "guesses n"] | None = None
    soft: Float[Tensor, "guesses n *values"] | None = None


class Relaxation(Protocol):
    """One kind of attribute."""

    def start(self, guesses: int, records: int, generator: Generator) -> Tensor:
        """Logits from the normal law."""
        ...

    def sample(self, logits: Tensor, generator: Generator) -> Sample:
        """Values at random."""
        ...

    def decide(self, logits: Tensor) -> Sample:
        """The likeliest values; ties go to the lower one."""
        ...

    def back(self, sample: Sample, slope: Float[Tensor, "guesses n columns"]) -> Tensor:
        """∂/∂logits from ∂/∂columns."""
        ...

    def keep(self, logits: Tensor) -> Tensor:
        """The logits, within bounds."""
        ...


class _Relaxed:
    """What the kinds share.

    Args:
        codes: of the values, or the range.
        temperature: τ.
    """

    def __init__(self, codes: Float[Tensor, "values columns"], temperature: float) -> None:
        self.codes, self.temperature = codes, temperature

    def _normal(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=self.codes.dtype).to(self.codes.device)

    def _gumbel(self, like: Tensor, generator: Generator) -> Tensor:
        uniform = torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)
        tiny = torch.finfo(like.dtype).tiny
        return -torch.log((-torch.log(uniform.clamp_min(tiny))).clamp_min(tiny))

    def keep(self, logits: Tensor) -> Tensor:
        """Logits have no bounds."""
        return logits


class Binary(_Relaxed):
    """One logit per record: value 1 where σ((a + Λ) / τ) > ½.

    Args:
        codes: two rows.
        temperature: τ.
        noise: ``logistic``, the difference of two Gumbel variables, or one ``gumbel`` variable.
    """

    def __init__(self, codes: Tensor, temperature: float, noise: Literal["logistic", "gumbel"] = "logistic") -> None:
        super().__init__(codes, temperature)
        self.noise = noise

    def start(self, guesses: int, records: int, generator: Generator) -> Float[Tensor, "guesses n"]:
        """Logits from the normal law."""
        return self._normal((guesses, records), generator)

    def sample(self, logits: Float[Tensor, "guesses n"], generator: Generator) -> Sample:
        """Values at random."""
        noise = self._gumbel(logits, generator)
        if self.noise == "logistic":
            noise = noise - self._gumbel(logits, generator)
        return self._hard(logits + noise)

    def decide(self, logits: Float[Tensor, "guesses n"]) -> Sample:
        """Value 1 where the logit is positive."""
        return self._hard(logits)

    def back(self, sample: Sample, slope: Float[Tensor, "guesses n columns"]) -> Float[Tensor, "guesses n"]:
        """Along the line between the two codes."""
        assert sample.soft is not None
        along = slope @ (self.codes[1] - self.codes[0])
        return along * sample.soft * (1 - sample.soft) / self.temperature

    def _hard(self, noisy: Float[Tensor, "guesses n"]) -> Sample:
        index = (noisy > 0).long()
        return Sample(self.codes[index], index, torch.sigmoid(noisy / self.temperature))


class Categorical(_Relaxed):
    """K logits per record, a Gumbel variable on each, softmax."""

    def start(self, guesses: int, records: int, generator: Generator) -> Float[Tensor, "guesses n values"]:
        """Logits from the normal law."""
        return self._normal((guesses, records, len(self.codes)), generator)

    def sample(self, logits: Float[Tensor, "guesses n values"], generator: Generator) -> Sample:
        """Values at random."""
        return self._hard(logits + self._gumbel(logits, generator))

    def decide(self, logits: Float[Tensor, "guesses n values"]) -> Sample:
        """The value with the largest logit."""
        return self._hard(logits)

    def back(self, sample: Sample, slope: Float[Tensor, "guesses n columns"]) -> Float[Tensor, "guesses n values"]:
        """Through the softmax of the noisy logits."""
        assert sample.soft is not None
        along = slope @ self.codes.T
        return sample.soft * (along - (sample.soft * along).sum(dim=-1, keepdim=True)) / self.temperature

    def _hard(self, noisy: Float[Tensor, "guesses n values"]) -> Sample:
        index = noisy.argmax(dim=-1)
        return Sample(self.codes[index], index, torch.softmax(noisy / self.temperature, dim=-1))


class Numerical(_Relaxed):
    """The value itself, without noise, within its range."""

    def start(self, guesses: int, records: int, generator: Generator) -> Float[Tensor, "guesses n"]:
        """From the normal law, as inputs are standardised as a rule."""
        return self.keep(self._normal((guesses, records), generator))

    def sample(self, logits: Float[Tensor, "guesses n"], generator: Generator) -> Sample:
        """The values."""
        return self.decide(logits)

    def decide(self, logits: Float[Tensor, "guesses n"]) -> Sample:
        """The values."""
        return Sample(logits[..., None])

    def back(self, sample: Sample, slope: Float[Tensor, "guesses n columns"]) -> Float[Tensor, "guesses n"]:
        """One column is one value."""
        return slope[..., 0]

    def keep(self, logits: Float[Tensor, "guesses n"]) -> Float[Tensor, "guesses n"]:
        """Within the range."""
        return logits.clamp(self.codes[0, 0], self.codes[1, 0])


def relaxation(
    attribute: Attribute,
    codes: Float[Tensor, "values columns"],
    temperature: float,
    noise: Literal["logistic", "gumbel"],
) -> Relaxation:
    """The one for this attribute."""
    if attribute.kind == "binary":
        return Binary(codes, temperature, noise)
    return Categorical(codes, temperature) if attribute.kind == "categorical" else Numerical(codes, temperature)
