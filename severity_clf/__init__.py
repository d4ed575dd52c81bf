"""How harmful is this LLM output? Calibrated severity, five levels, per harm domain, in milliseconds on CPU."""

from severity_clf.bundle import BundleError
from severity_clf.corpus import Summary, score_file, score_table
from severity_clf.evaluate import evaluate
from severity_clf.formats import CorpusError
from severity_clf.model import SeverityModel, Windows, load
from severity_clf.records import Record, RecordError, read_records
from severity_clf.report import Report
from severity_clf.reward import SafetyReward
from severity_clf.scores import Scores
from severity_clf.taxonomy import Domain, Level, Taxonomy

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "CorpusError",
    "Domain",
    "Level",
    "Record",
    "RecordError",
    "Report",
    "SafetyReward",
    "Scores",
    "SeverityModel",
    "Summary",
    "Taxonomy",
    "Windows",
    "evaluate",
    "load",
    "read_records",
    "score_file",
    "score_table",
]
