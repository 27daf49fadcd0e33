"""`Dictionary`: a SAELens dictionary that knows which site of which model it belongs to.

Made by :func:`~ed_interp.probes.dictionaries.loading.load` and
:func:`~ed_interp.probes.dictionaries.training.train`. The SAELens object stays reachable as
``.sae``. Cost of encoding: one matrix product of ``token x d_model`` by ``d_model x latent``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load as load_model
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.readme import readme_of
from ed_interp.records import RunFolder, write_bytes, write_json, write_text
from ed_interp.streams.direction import Direction
from ed_interp.streams.provenance import ModelStamp

if TYPE_CHECKING:
    from sae_lens import SAE

    from ed_interp.streams.injection import Selector

Edit = Callable[[Tensor], Tensor]
"""(activations ``batch pos latent``) -> activations."""

FORMAT = "ed-interp/dictionary"
VERSION = 1
RECORD = "run.json"
CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
"""The names by which SAELens knows these files."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dictionary:
    """Features of the residual stream at one site."""

    sae: SAE[Any]
    """SAELens's object, in the form for use."""
    site: Site | None = None
    """Where it reads and writes; None if it was made without saying so."""
    stamp: ModelStamp | None = None
    """The model it was trained on; None if only its name, or nothing, is known."""
    source: str | None = None
    """Folder, or release and id, that it came from."""
    record: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """How it was trained, where it was trained here: settings, environment, history."""

    def __repr__(self) -> str:
        place = "no site" if self.site is None else self.site.name
        return (
            f"Dictionary({self.architecture}, {self.latents} latents of {self.width} channels, "
            f"{self.model_name or 'unknown model'}, {place})"
        )

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
        if self.stamp is not None:
            return self.stamp.name
        name = self.sae.cfg.metadata.model_name
        return None if name is None else str(name)

    @property
    def decoder(self) -> Float[Tensor, "latent d_model"]:
        """What one unit of each latent adds to the stream, detached."""
        rows: Tensor = self.sae.W_dec.detach()
        if getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return rows

    def encode(self, states: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch latent"]:
        """Activations of every latent.

        Raises:
            InvalidInputError: states of another width.
        """
        self._check_width(states, self.width, "states")
        found: Tensor = self.sae.encode(states.to(self.sae.device))
        return found.to_dense() if found.is_sparse else found

    def decode(
        self, activations: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch d_model"]:
        """The states that activations stand for.

        A dictionary that normalises its input (``normalize_activations="layer_norm"``) can decode
        only right after encoding; :meth:`reconstruct` always can.

        Raises:
            InvalidInputError: activations of another width.
        """
        self._check_width(activations, self.latents, "activations")
        decoded: Tensor = self.sae.decode(activations.to(self.sae.device, self.sae.dtype))
        return decoded

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
            error: Add what the reconstruction misses. Without ``edit`` the output is then exactly
                that of the model; with it, it differs by what the edit did and nothing else.
            edit: A function of the activations ``batch pos latent``, given to the decoder in
                their place.
            where: Tokens to act on, of :mod:`ed_interp.streams.injection`; default all.
            at: Another site; for a dictionary that knows none.

        Raises:
            InvalidInputError: another width, or no site known.
            UnknownNameError: no such site.
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
            # In this order: the difference of equal numbers is exactly 0.
            return states + (made - decoded).to(states.device, states.dtype)

        with inject(hooked, Transform(site, replaced, where=Where() if where is None else where)):
            yield hooked

    def direction(self, feature: int, *, model: Any = None) -> Direction:
        """A latent's decoder row, for steering: what one unit of it adds to the stream.

        Args:
            feature: Index of the latent.
            model: Where it is to be used; needed for a dictionary that was not trained here, and
                so does not know its model.

        Raises:
            InvalidInputError: no such latent, no site known, or no model known or given.
        """
        if not 0 <= feature < self.latents:
            raise InvalidInputError(
                f"feature {feature}: this dictionary has 0 to {self.latents - 1}"
            )
        row = self.decoder[feature]
        settings = {"feature": feature, "dictionary": self.source, "latents": self.latents}
        method = f"feature {feature} of a {self.architecture} dictionary"
        if model is not None:
            hooked = load_model(model)
            site = self.check(hooked)
            return Direction.of(hooked, {site.name: row}, method=method, settings=settings)
        if self.stamp is None or self.site is None:
            raise InvalidInputError(
                "this dictionary does not know its model; pass direction(feature, model=...)"
            )
        from ed_interp.streams.provenance import Provenance

        return Direction({self.site.name: row}, Provenance(method, self.stamp, settings=settings))

    def check(self, hooked: HookedModel, *, at: str | Site | None = None) -> Site:
        """The site on ``hooked``, once width and site are known to fit.

        Other weights of the same shape are allowed: following features over the checkpoints of a
        training is one use. :meth:`fits` says whether it is the same model.

        Raises:
            InvalidInputError: another width, or no site known.
            UnknownNameError: no such site.
        """
        place = self.site if at is None else at
        if place is None:
            hook = self.sae.cfg.metadata.hook_name
            raise InvalidInputError(
                f"this dictionary names no site that is read here (its hook: {hook!r}); pass "
                f"load(..., site='blocks.0.hook_resid_post') or the like"
            )
        site = hooked.site(place)
        if hooked.d_model != self.width:
            raise InvalidInputError(
                f"a dictionary of width {self.width} ({self.model_name or 'unknown model'}) does "
                f"not fit {hooked.name}, whose stream has {hooked.d_model} channels"
            )
        return site

    def fits(self, hooked: HookedModel) -> str | None:
        """Why ``hooked`` is not the model it was trained on; None if it is, or is not known."""
        return None if self.stamp is None else self.stamp.refusal(hooked)

    def _check_width(self, tensor: Tensor, width: int, what: str) -> None:
        if tensor.shape[-1] != width:
            raise InvalidInputError(
                f"{what} of width {tensor.shape[-1]}: this dictionary has {self.width} channels "
                f"and {self.latents} latents"
            )

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's record."""
        return {
            "architecture": self.architecture,
            "trained_as": self.sae.cfg.metadata.training_architecture,
            "latents": self.latents,
            "width": self.width,
            "site": None if self.site is None else self.site.name,
            "model": self.model_name,
            "fingerprint": None if self.stamp is None else self.stamp.fingerprint,
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder that SAELens loads and that says what it is; gives its path.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        settings = self.record.get("settings", {"kind": "dictionary", **self.describe()})
        with RunFolder.open(folder, settings, overwrite=overwrite, resumable=False) as run:
            self.write(run.folder)
        return run.path

    def write(self, folder: Path) -> None:
        """The files of :meth:`save`, into a folder that exists."""
        from safetensors.torch import save

        weights = self.sae.state_dict()
        self.sae.process_state_dict_for_saving(weights)
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        # What SAE.save_model writes, but whole or not at all.
        write_bytes(folder / WEIGHTS, save(whole))
        write_json(folder / CONFIG, self.sae.cfg.to_dict())
        stamp = None if self.stamp is None else dataclasses.asdict(self.stamp)
        record = {
            "format": FORMAT,
            "version": VERSION,
            **self.describe(),
            "stamp": stamp,
            **self.record,
        }
        write_json(folder / RECORD, record)
        write_text(folder / "README.md", readme_of(self.describe()))


def inference_sae(sae: SAE[Any]) -> SAE[Any]:
    """The form for use of a dictionary in training; any other as it is.

    Goes through SAELens's own conversion, in memory rather than by way of a folder.
    """
    from ed_interp.probes.dictionaries.backend import TrainingSAE, registry

    if not isinstance(sae, TrainingSAE):
        return sae
    config = json.loads(json.dumps(sae.cfg.get_inference_sae_cfg_dict()))
    weights = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(weights)
    made: SAE[Any] = registry.get_sae_class(config["architecture"])[0].from_dict(config)
    made.process_state_dict_for_loading(weights)
    made.load_state_dict(weights)
    return made.to(sae.device).eval().requires_grad_(False)


def stamp_from(data: Any) -> ModelStamp | None:
    """The stamp in a record; None where there is none, or one of another version."""
    if not isinstance(data, dict):
        return None
    with contextlib.suppress(Exception):  # beartype's own errors under test are no TypeErrors
        return ModelStamp(**{**data, "sample": tuple(data.get("sample", ()))})
    return None
