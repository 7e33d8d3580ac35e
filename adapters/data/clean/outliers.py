"""The outlier step: examples whose words are far from those of all the others."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from adapters.data.clean.script import is_spaceless, terms
from adapters.data.example import Example
from adapters.data.step import Finding, StepResult
from adapters.errors import DataError

MIN_EXAMPLES = 50
"""With fewer, what is usual cannot be told."""

_SEED = 17
_MAX_CLUSTERS = 8
_MAX_TERMS = 50_000
# Above this the clusters are found on a sample drawn in steps, and all examples measured against them.
_CLUSTERED_EXAMPLES = 20_000
# A cluster counts as usual with so many members; below, a handful of outliers would be their own centre.
_MIN_CLUSTER_SHARE = 0.02
_MIN_CLUSTER = 5
# Median absolute deviation to standard deviation, for a normal distribution.
_MAD_TO_SIGMA = 1.4826


def flag_outliers(
    examples: Sequence[Example], *, quantile: float = 0.99, deviations: float = 4.0
) -> StepResult:
    """Flags examples far from the nearest centre of a few clusters of TF-IDF vectors; removes none.

    Words and, for Chinese and other scripts without spaces, single characters and pairs are counted, over all
    parts but system messages. The distance is 1 - cosine. Flagged is what is beyond both the `quantile` of all
    distances and the median plus `deviations` robust standard deviations: the first bounds how many, the second
    leaves data alone in which nothing stands out. The farthest comes first. With fewer than 50 examples nothing
    is flagged; `counts` says so.

    Raises:
        DataError: the quantile is not between 0 and 1, or the deviations are negative.
    """
    if not 0 < quantile < 1:
        raise DataError(f"The outlier quantile is {quantile}; give one between 0 and 1, such as 0.99.")
    if not deviations >= 0:
        raise DataError(f"The outlier limit is {deviations} deviations; give 0 or more, such as 4.")
    kept = tuple(examples)
    if len(examples) < MIN_EXAMPLES:
        return StepResult(
            name="outliers", kept=kept, counts=((f"skipped: fewer than {MIN_EXAMPLES} examples", 1),)
        )
    import numpy as np

    distances = _distances(examples)
    median = float(np.median(distances))
    sigma = _MAD_TO_SIGMA * float(np.median(np.abs(distances - median)))
    limit = max(float(np.quantile(distances, quantile)), median + deviations * sigma)
    far = [index for index in np.argsort(-distances, kind="stable").tolist() if distances[index] > limit]
    flagged = tuple(
        Finding(
            examples[index],
            f"outlier: distance {distances[index]:.2f}, median {median:.2f}, limit {limit:.2f}",
        )
        for index in far
    )
    return StepResult(
        name="outliers", kept=kept, flagged=flagged, counts=(("outliers", len(flagged)),) if flagged else ()
    )


def outlier_terms(text: str) -> list[str]:
    """The terms that are counted: words, and characters of scripts without spaces with their pairs."""
    found = terms(text)
    pairs = [a + b for a, b in pairwise(found) if is_spaceless(a) and is_spaceless(b)]
    return found + pairs


def _text(example: Example) -> str:
    if example.messages:
        return "\n".join(message.content for message in example.messages if message.role != "system")
    return "\n".join(example.parts())


def _distances(examples: Sequence[Example]) -> Any:
    """float64 [n]: 1 - cosine to the nearest centre; 1 where none of an example's terms is known from another."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    documents = [outlier_terms(_text(example)) for example in examples]
    if _all_different(documents):
        return np.zeros(len(documents))
    vectorizer = TfidfVectorizer(
        analyzer=list, min_df=2, max_features=_MAX_TERMS, sublinear_tf=True, dtype=np.float32
    )
    vectors = vectorizer.fit_transform(documents)
    # Terms of one example alone are left out of the vectors, but not out of their length: a text of nothing but
    # unknown words would else be as near as its one common word makes it.
    lengths = np.array([_known_share(document, vectorizer.vocabulary_) for document in documents])
    return 1.0 - np.max(vectors @ _centres(vectors).T, axis=1) * lengths


def _all_different(documents: Sequence[Sequence[str]]) -> bool:
    """Whether no term is in two documents, so that there is nothing to measure with."""
    seen: set[str] = set()
    for document in documents:
        if not seen.isdisjoint(document):
            return False
        seen.update(document)
    return True


def _known_share(found: Sequence[str], vocabulary: dict[str, int]) -> float:
    """Length of the part of a vector that is made of known terms, if every term weighed the same."""
    if not found:
        return 0.0
    return math.sqrt(sum(term in vocabulary for term in found) / len(found))


def _centres(vectors: Any) -> Any:
    """float [clusters, terms], of length 1: the centres of the clusters that are large enough to be usual."""
    import numpy as np
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.preprocessing import normalize  # type: ignore[import-untyped]

    sample = vectors[:: math.ceil(vectors.shape[0] / _CLUSTERED_EXAMPLES)]
    num_clusters = max(1, min(_MAX_CLUSTERS, sample.shape[0] // MIN_EXAMPLES))
    with warnings.catch_warnings():
        # Fewer different texts than clusters: the clusters that remain are all there is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(num_clusters, random_state=_SEED, n_init=1, max_iter=50).fit(sample)
    sizes = np.bincount(clusters.labels_, minlength=num_clusters)
    usual = sizes >= max(_MIN_CLUSTER, _MIN_CLUSTER_SHARE * sample.shape[0])
    return normalize(clusters.cluster_centers_[usual if usual.any() else sizes == sizes.max()])
