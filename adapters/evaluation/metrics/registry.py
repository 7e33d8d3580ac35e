"""Every metric, by the name that `--metrics` takes. A new one is a file beside this and one line here."""

from __future__ import annotations

from adapters.evaluation.metrics.accuracy import Accuracy
from adapters.evaluation.metrics.auc import Auc
from adapters.evaluation.metrics.bleu import Bleu
from adapters.evaluation.metrics.exact_match import ExactMatch
from adapters.evaluation.metrics.false_alarms import FalseAlarms
from adapters.evaluation.metrics.macro_f1 import MacroF1
from adapters.evaluation.metrics.mean_absolute_error import MeanAbsoluteError
from adapters.evaluation.metrics.metric import Metric
from adapters.evaluation.metrics.perplexity import Perplexity
from adapters.evaluation.metrics.rouge import Rouge

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Accuracy(),
        MacroF1(),
        Auc(),
        MeanAbsoluteError(),
        FalseAlarms(),
        ExactMatch(),
        Bleu(),
        Rouge(),
        Perplexity(),
    )
}
