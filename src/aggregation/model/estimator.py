"""Estimator: the model with the habits of scikit-learn."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from aggregation.errors import InputError
from aggregation.model.fit import fit
from aggregation.model.multistart import Settings
from aggregation.model.parameters import ALIGNED, Parameters, Penalty
from aggregation.model.ratings import Ratings


class BridgingModel(TransformerMixin, BaseEstimator):
    """Bridging matrix factorisation: y_ug = mu + i_u + i_g + f_u . f_g. See docs/method.md.

    X [users, guidelines] holds ratings from 0 to 1, NaN where there is none. `fit` sets `mu_`,
    `user_intercepts_` [U], `user_embeddings_` [U, D], `guideline_intercepts_` [G] (how helpful a
    guideline is to all sides), `guideline_embeddings_` [G, D], `loss_` and `converged_`.
    `transform` gives the embeddings of users, of new ones too. Raises InputError for other numbers
    in X.

    >>> import numpy as np
    >>> X = np.array([[1, 1, 0], [1, 0, 1], [1, 1, np.nan], [1, 0, 1]])
    >>> int(BridgingModel().fit(X).guideline_intercepts_.argmax())
    0
    """

    def __init__(
        self,
        intercept_penalty: float = ALIGNED.intercept,
        embedding_penalty: float = ALIGNED.embedding,
        dimensions: int = 1,
        random_state: int = 0,
    ) -> None:
        self.intercept_penalty = intercept_penalty
        self.embedding_penalty = embedding_penalty
        self.dimensions = dimensions
        self.random_state = random_state

    def fit(self, X: Any, y: None = None) -> Self:
        """Fit the model to the ratings X; y is not used."""
        found = fit(_ratings(X), self._penalty(), self._settings())
        p = found.parameters
        self.mu_ = float(p.mu)
        self.user_intercepts_, self.user_embeddings_ = p.user_intercept, p.user_embedding
        self.guideline_intercepts_ = p.guideline_intercept
        self.guideline_embeddings_ = p.guideline_embedding
        self.n_features_in_ = len(p.guideline_intercept)
        self.loss_, self.converged_ = found.objective, found.converged
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Where the users of X stand [U, D], for the guidelines as they were fitted."""
        return self._users(X).user_embedding

    def predict(self, X: Any) -> np.ndarray:
        """The expected rating of every guideline by the users of X [U, G], from those they gave."""
        p = self._users(X)
        level = p.mu + p.user_intercept[:, None] + p.guideline_intercept
        return level + p.user_embedding @ p.guideline_embedding.T

    def _users(self, X: Any) -> Parameters:
        check_is_fitted(self)
        ratings = _ratings(X)
        if ratings.n_guidelines != self.n_features_in_:
            raise InputError(
                f"X has {ratings.n_guidelines} guidelines, the model {self.n_features_in_}: give "
                "the same columns"
            )
        u, d = ratings.n_users, self.dimensions
        known = (self.guideline_intercepts_, self.guideline_embeddings_)
        unknown = (np.full(u, np.nan), np.full((u, d), np.nan))
        fixed = Parameters(self.mu_, *unknown, *known)
        found = fit(ratings, self._penalty(), self._settings(), fixed, "guidelines")
        return found.parameters

    def _penalty(self) -> Penalty:
        return Penalty(self.intercept_penalty, self.embedding_penalty)

    def _settings(self) -> Settings:
        return Settings(dimensions=self.dimensions, seed=self.random_state)


def _ratings(X: Any) -> Ratings:
    table = np.asarray(X, np.float64)
    if table.ndim != 2:
        raise InputError(f"X has {table.ndim} axes: give [users, guidelines]")
    user, guideline = np.nonzero(~np.isnan(table))
    helpful = table[user, guideline]
    if not len(helpful) or not ((helpful >= 0) & (helpful <= 1)).all():
        raise InputError("X holds no rating, or one outside [0, 1]: NaN stands for none")
    return Ratings(user.astype(np.int32), guideline.astype(np.int32), helpful, *table.shape)
