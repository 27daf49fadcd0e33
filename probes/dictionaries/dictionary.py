"""`Dictionary`: a SAELens dictionary that knows which site of which model it belongs to.

Made by :func:`~ed_interp.probes.dictionaries.loading.load` and
:func:`~ed_interp.probes.dictionaries.training.train`; ``.sae`` is the SAELens object. Cost of
encoding: one matrix product of ``token x d_model`` by ``d_model x latent``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load as load_model
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.results import DictionaryRecord
from ed_interp.probes.dictionaries.rows import TrainingRow
from ed_interp.records import RunFolder, write_bytes, write_json, write_text
from ed_interp.streams.direction import Direction
from ed_interp.streams.provenance import ModelStamp, Provenance

if TYPE_CHECKING:
    from sae_lens import SAE

    from ed_interp.streams.injection import Selector

Edit = Callable[[Tensor], Tensor]
"""(activations ``batch pos latent``) -> activations."""

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
"""The names by which SAELens knows these files."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dictionary:
    """Features of the residual stream at one site."""

    sae: SAE[Any]
    """SAELens's object, in the form for inference."""
    site: Site | None = None
    """Where it reads and writes; None if its configuration names no site that is read here."""
    stamp: ModelStamp | None = None
    """The model it was trained on; None if only its name, or nothing, is known."""
    source: str | None = None
    """Folder, or release and id, that it came from."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """How it was trained, if by :func:`~ed_interp.probes.dictionaries.training.train`."""
    history: tuple[TrainingRow, ...] = dataclasses.field(default=(), repr=False)

    def __repr__(self) -> str:
        size = f"{self.latents} latents of {self.width} channels"
        place = "no site" if self.site is None else self.site.name
        return f"Dictionary({self.architecture}, {size}, {self.model_name}, {place})"

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return int(self.sae.cfg.d_in)

    @property
    def latents(self) -> int:
        """Number of latents."""
        return int(self.sae.cfg.d_sae)

    @property
    def architecture(self) -> str:
        """SAELens's name of it; batch-top-k and matryoshka are ``jumprelu`` once trained."""
        return str(self.sae.cfg.architecture())

    @property
    def model_name(self) -> str | None:
        """Name of the model it was trained on."""
        return self.sae.cfg.metadata.model_name if self.stamp is None else self.stamp.name

    @property
    def decoder(self) -> Float[Tensor, "latent d_model"]:
        """What one unit of each latent adds to the stream, detached."""
        rows: Tensor = self.sae.W_dec.detach()
        # Some of SAELens's top-k dictionaries decode by rows of length 1 whatever is stored.
        if getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return rows

    def encode(self, states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch latent"]:
        """Activations of every latent; states of another width are refused."""
        self._check_width(states, self.width, "states")
        activations: Tensor = self.sae.encode(states.to(self.sae.device))
        return activations.to_dense() if activations.is_sparse else activations

    def decode(
        self, activations: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch d_model"]:
        """The states that activations stand for.

        A dictionary that normalises its input (``normalize_activations="layer_norm"``) can decode
        only right after encoding; :meth:`reconstruct` always can.
        """
        self._check_width(activations, self.latents, "activations")
        return cast(Tensor, self.sae.decode(activations.to(self.sae.device, self.sae.dtype)))

    def reconstruct(
        self, states: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_model"]:
        """Encoded and decoded, on the device and in the precision of ``states``."""
        return self.decode(self.encode(states)).to(states.device, states.dtype)

    @contextlib.contextmanager
    def splice(
        self,
        model: Any,
        *,
        error: bool = False,
        edit: Edit | None = None,
        where: Selector | None = None,
        at: str | Site | None = None,
    ) -> Iterator[HookedModel]:
        """The model with its stream at the site replaced by the reconstruction, while inside.

        Args:
            model: Anything :func:`ed_interp.load` takes.
            error: Add the reconstruction's error. Without ``edit`` the output is then exactly that
                of the model; with it, only the edit makes a difference.
            edit: From the activations ``batch pos latent`` to those that are decoded.
            where: Tokens to act on, of :mod:`ed_interp.streams.injection`; default all.
            at: Another site, or the site of a dictionary that names none; checked by :meth:`check`.
        """
        from ed_interp.streams.injection import Transform, Where, inject

        hooked = load_model(model)
        site = self.check(hooked, at=at)

        def replaced(states: Tensor, selected: Tensor) -> Tensor:
            activations = self.encode(states)
            decoded = self.decode(activations)
            made = decoded if edit is None else self.decode(edit(activations))
            if not error:
                return made.to(states.device, states.dtype)
            # In this order, as the difference of equal numbers is exactly 0: without an edit the
            # stream is unchanged to the last bit.
            return states + (made - decoded).to(states.device, states.dtype)

        with inject(hooked, Transform(site, replaced, where=Where() if where is None else where)):
            yield hooked

    def direction(self, feature: int, *, model: Any = None) -> Direction:
        """A latent's decoder row, for steering: what one unit of it adds to the stream.

        Args:
            feature: Index of the latent.
            model: The model it will be used in; needed if the dictionary does not know its own.

        Raises:
            InvalidInputError: no such latent, no site known, or no model known or given.
        """
        self.check_features([feature])
        row = self.decoder[feature]
        settings = {"feature": feature, "dictionary": self.source, "latents": self.latents}
        method = f"feature {feature} of a {self.architecture} dictionary"
        if model is not None:
            hooked = load_model(model)
            # In units of the activation: coefficient 1 is what an activation of 1 adds.
            vectors = {self.check(hooked).name: row}
            return Direction.of(hooked, vectors, method=method, settings=settings)
        if self.stamp is None or self.site is None:
            raise InvalidInputError(
                "this dictionary does not know its model; pass direction(feature, model=...)"
            )
        return Direction({self.site.name: row}, Provenance(method, self.stamp, settings=settings))

    def check_features(self, features: Iterable[int]) -> None:
        """Raise InvalidInputError unless all of ``features`` are numbers of a latent."""
        for feature in features:
            if not 0 <= feature < self.latents:
                raise InvalidInputError(
                    f"feature must be 0 to {self.latents - 1} in this dictionary, got {feature}"
                )

    def check(self, hooked: HookedModel, *, at: str | Site | None = None) -> Site:
        """The site on ``hooked``, after checking width and site.

        Other weights of the same shape are allowed, for instance the checkpoints of a training.
        :meth:`fits` says whether it is the same model.

        Raises:
            InvalidInputError: another width, or no site known.
            UnknownNameError: no such site.
        """
        place = self.site if at is None else at
        if place is None:
            hook = self.sae.cfg.metadata.hook_name
            raise InvalidInputError(
                f"this dictionary names no site that can be read (its hook: {hook!r}); pass one, "
                "such as site='blocks.0.hook_resid_post' (--site)"
            )
        site = hooked.site(place)
        if hooked.d_model != self.width:
            raise InvalidInputError(
                f"a dictionary of width {self.width} ({self.model_name or 'unknown model'}) does "
                f"not fit {hooked.name}, whose stream has {hooked.d_model} channels"
            )
        return site

    def fits(self, hooked: HookedModel) -> str | None:
        """Why ``hooked`` is not the model it was trained on; None if it is, or if unknown."""
        return None if self.stamp is None else self.stamp.refusal(hooked)

    def _check_width(self, tensor: Tensor, width: int, what: str) -> None:
        if tensor.shape[-1] != width:
            raise InvalidInputError(
                f"{what} of width {tensor.shape[-1]}: this dictionary has {self.width} channels "
                f"and {self.latents} latents"
            )

    def describe(self) -> dict[str, Any]:
        """Plain data for the settings of a result."""
        return {
            "architecture": self.architecture,
            "trained_as": self.sae.cfg.metadata.training_architecture,
            "latents": self.latents,
            "width": self.width,
            "site": None if self.site is None else self.site.name,
            "model": self.model_name,
            "fingerprint": None if self.stamp is None else self.stamp.fingerprint,
        }

    @property
    def record(self) -> DictionaryRecord:
        """What it is and how it was trained, with the curves of its training."""
        stamp = None if self.stamp is None else dataclasses.asdict(self.stamp)
        return DictionaryRecord(
            **self.describe(), stamp=stamp, settings=self.settings, history=self.history
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder that SAELens loads, with a record and a README; returns its path.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        settings = self.settings or {"kind": "dictionary", **self.describe()}
        with RunFolder.open(folder, settings, overwrite=overwrite, resumable=False) as run:
            self.write(run.folder)
        return run.path

    def write(self, folder: Path) -> None:
        """Write the files of :meth:`save` into a folder that exists."""
        from safetensors.torch import save

        from ed_interp.report import page

        weights = self.sae.state_dict()
        self.sae.process_state_dict_for_saving(weights)
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        # The files of SAE.save_model, which would leave half a file behind on a full disk.
        write_bytes(folder / WEIGHTS, save(whole))
        write_json(folder / CONFIG, self.sae.cfg.to_dict())
        self.record.write(folder)
        write_text(folder / "README.md", page("dictionary.md.j2", record=self.record) + "\n")


def inference_sae(sae: SAE[Any]) -> SAE[Any]:
    """A dictionary in training in its form for inference; any other as it is."""
    from ed_interp.probes.dictionaries.backend import TrainingSAE, registry

    if not isinstance(sae, TrainingSAE):
        return sae
    # SAELens's own conversion writes a folder and reads it back. This does the same in memory; by
    # way of JSON, as its configuration holds objects that reading expects as plain data.
    config = json.loads(json.dumps(sae.cfg.get_inference_sae_cfg_dict()))
    weights = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(weights)
    made: SAE[Any] = registry.get_sae_class(config["architecture"])[0].from_dict(config)
    made.process_state_dict_for_loading(weights)
    made.load_state_dict(weights)
    return made.to(sae.device).eval().requires_grad_(False)
