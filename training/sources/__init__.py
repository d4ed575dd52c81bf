"""One loader a data set: raw files as published in, labelled `Record`s out.

    for record in training.sources.TRAIN["edos"](Path("data")): ...

`manifest.tsv` says where each file comes from and what its sha256 is; a loader reads no file that differs. What a
label means, and which levels it allows, stands at the top of each module. Nothing is downloaded here, and the mixing,
splitting and balancing of sources is the recipe's.

`NON_COMMERCIAL` holds loaders for data sets that a user may have but that no shipped bundle may know. They are read
from wherever the user says:

    for record in training.sources.NON_COMMERCIAL["beavertails"].records("train.jsonl.gz"): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from severity_clf.records import Record

from . import (
    adaptive_attacks,
    advbench_strings,
    beavertails,
    bingoguard,
    cipherchat,
    convabuse,
    davidson,
    diasafety,
    dices_990,
    do_not_answer,
    duecare_trafficking,
    edos,
    gptfuzz,
    halueval_general,
    harmbench_cls_val,
    hatecheck,
    hh_rlhf_harmless,
    jbb_artifacts,
    labsafety,
    latent_jailbreak,
    llm_self_defense,
    medsafetybench,
    msts,
    openai_mod,
    pku_saferlhf,
    pyrit,
    refusal_direction,
    refusalbench,
    rtp_lx,
    rtp_quark_val,
    sap,
    wildguardmix,
    xstest,
)
from .manifest import Source, files, sources

__all__ = ["BENCH", "GRADED", "NON_COMMERCIAL", "TRAIN", "Given", "Loader", "Source", "files", "sources"]

Loader = Callable[[Path], Iterator[Record]]


@dataclass(frozen=True, slots=True)
class Given:
    """A data set that the user has.

    Attributes:
        source: where it comes from, and its licence; no files, because any copy in the published format will do.
        records: the loader, from a file, a folder or a hub name.
    """

    source: Source
    records: Callable[[str], Iterator[Record]]


TRAIN: Mapping[str, Loader] = {
    "adaptive_attacks": adaptive_attacks.records,
    "advbench_strings": advbench_strings.records,
    "cipherchat": cipherchat.records,
    "convabuse": convabuse.records,
    "davidson": davidson.records,
    "diasafety": diasafety.records,
    "do_not_answer": do_not_answer.records,
    "duecare_trafficking": duecare_trafficking.records,
    "edos": edos.records,
    "gptfuzz": gptfuzz.records,
    "halueval_general": halueval_general.records,
    "jbb_artifacts": jbb_artifacts.records,
    "labsafety": labsafety.records,
    "latent_jailbreak": latent_jailbreak.records,
    "llm_self_defense": llm_self_defense.records,
    "medsafetybench": medsafetybench.records,
    "msts": msts.records,
    "refusal_direction": refusal_direction.records,
    "refusalbench": refusalbench.records,
    "rtp_quark_val": rtp_quark_val.records,
    "sap": sap.records,
}
# People's grades on model-written text: fitted on only across folds, by group.
GRADED: Mapping[str, Loader] = {"pyrit": pyrit.records, "rtp_lx": rtp_lx.records}
# Never trained on.
BENCH: Mapping[str, Loader] = {
    "dices_990": dices_990.records,
    "harmbench_cls_val": harmbench_cls_val.records,
    "hatecheck": hatecheck.records,
    "hh_rlhf_harmless": hh_rlhf_harmless.records,
    "openai_mod": openai_mod.records,
    "xstest": xstest.records,
}
# Not for commercial use, or behind a gate: only where the user asks for them by name, and never in a shipped bundle.
NON_COMMERCIAL: Mapping[str, Given] = {
    module.SOURCE.name: Given(module.SOURCE, module.records)
    for module in (beavertails, bingoguard, pku_saferlhf, wildguardmix)
}
