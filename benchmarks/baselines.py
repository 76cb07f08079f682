"""What one would write instead of this package: the same loss, by a general optimiser.

Each takes ratings and a learning rate, and tells now and then the seconds at work, the loss in its
own arithmetic, and a function that gives its parameters; it goes on until it is told to stop.
Compiling is not counted, for it or for us.
"""

import time
from collections.abc import Callable

import numpy as np

from aggregation import Parameters, Penalty, Ratings

Tell = Callable[[float, float, Callable[[], Parameters]], bool]
"""Whether to stop."""

STEPS = 10
"""Steps between two looks at the loss."""


def first(ratings: Ratings, seed: int = 0) -> list[np.ndarray]:
    """The original notebook's start: uniform draws from [0, 1)."""
    random = np.random.default_rng(seed)
    u, g = ratings.n_users, ratings.n_guidelines
    return [np.zeros(()), random.random(u), random.random(u), random.random(g), random.random(g)]


def parameters(p: list[np.ndarray]) -> Parameters:
    """From mu and both sides' intercepts and embeddings on one axis."""
    mu, i_u, f_u, i_g, f_g = (np.asarray(x, np.float64) for x in p)
    return Parameters(mu, i_u, f_u.reshape(-1, 1), i_g, f_g.reshape(-1, 1))


def loss_of(p, user, guideline, helpful, n_u, n_g, absolute, square_sum):
    """`aligned` written out, for any library's arrays."""
    mu, i_u, f_u, i_g, f_g = p
    error = helpful - mu - i_u[user] - i_g[guideline] - f_u[user] * f_g[guideline]
    penalty = Penalty()
    intercepts = (n_u * i_u**2).sum() + (n_g * i_g**2).sum() + len(helpful) * mu**2
    embeddings = (n_u * absolute(f_u)).sum() + (n_g * absolute(f_g)).sum()
    total = square_sum(error) + penalty.intercept * intercepts + penalty.embedding * embeddings
    return total / len(helpful)


def adam_jax(ratings: Ratings, rate: float, tell: Tell) -> None:
    """A jitted loop of full gradients and optax's Adam, float32."""
    import jax
    import jax.numpy as jnp
    import optax

    data = tuple(map(jnp.asarray, columns(ratings, np.float32)))
    adam = optax.adam(rate)

    def value(p, data):
        return loss_of(p, *data, jnp.abs, lambda x: (x * x).sum())

    @jax.jit
    def steps(p, state, data):
        def step(carry, _):
            p, state = carry
            loss, slope = jax.value_and_grad(value)(p, data)
            change, state = adam.update(slope, state)
            return (optax.apply_updates(p, change), state), loss

        (p, state), losses = jax.lax.scan(step, (p, state), length=STEPS)
        return p, state, losses[-1]

    p = [jnp.asarray(x, jnp.float32) for x in first(ratings)]
    state, taken = adam.init(p), 0.0
    jax.block_until_ready(steps(p, state, data))  # compiles
    stop = False
    while not stop:
        began = time.perf_counter()
        p, state, loss = jax.block_until_ready(steps(p, state, data))
        taken += time.perf_counter() - began
        stop = tell(taken, float(loss), lambda p=p: parameters(p))


def adam_torch(ratings: Ratings, rate: float, tell: Tell) -> None:
    """Embedding layers and full gradients by PyTorch's Adam, float32, as Community Notes does."""
    import torch

    user, guideline, helpful, *_ = (torch.from_numpy(x) for x in columns(ratings, np.float32))
    p = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in first(ratings)]
    mu, *tables = p
    layers = [torch.nn.Embedding.from_pretrained(x.detach()[:, None], freeze=False) for x in tables]
    adam = torch.optim.Adam([mu, *(layer.weight for layer in layers)], lr=rate)
    penalty, taken, stop = Penalty(), 0.0, False
    while not stop:
        began = time.perf_counter()
        for _ in range(STEPS):
            adam.zero_grad()
            i_u, f_u, i_g, f_g = (
                layer(rows)[:, 0]
                for layer, rows in zip(layers, (user, user, guideline, guideline), strict=True)
            )
            error = helpful - mu - i_u - i_g - f_u * f_g
            # A mean over ratings penalises a row as often as it was rated.
            loss = (
                (error**2).mean()
                + penalty.intercept * ((i_u**2).mean() + (i_g**2).mean() + mu**2)
                + penalty.embedding * (f_u.abs().mean() + f_g.abs().mean())
            )
            loss.backward()
            adam.step()
        taken += time.perf_counter() - began
        now = [mu.detach().numpy(), *(layer.weight.detach().numpy()[:, 0] for layer in layers)]
        stop = tell(taken, float(loss.detach()), lambda now=now: parameters(now))


def lbfgs(ratings: Ratings, _: float, tell: Tell) -> None:
    """SciPy's L-BFGS-B with JAX's gradient, float64; it needs no rate."""
    import jax
    import jax.numpy as jnp
    from scipy.optimize import minimize

    jax.config.update("jax_enable_x64", True)
    data = tuple(map(jnp.asarray, columns(ratings, np.float64)))
    start = first(ratings)
    ends = np.cumsum([x.size for x in start])[:-1]

    def unflat(x):
        mu, *rest = jnp.split(x, ends)
        return [mu[0], *rest]

    @jax.jit
    def value(x, data):
        return jax.value_and_grad(
            lambda x: loss_of(unflat(x), *data, jnp.abs, lambda e: (e * e).sum())
        )(x)

    def both(x):
        loss, slope = value(x, data)
        return float(loss), np.asarray(slope)

    x0 = np.concatenate([x.ravel() for x in start])
    both(x0)  # compiles
    began = time.perf_counter()

    def after(intermediate_result):
        x = intermediate_result.x.copy()
        now = time.perf_counter() - began
        if tell(now, intermediate_result.fun, lambda: parameters(list(map(np.asarray, unflat(x))))):
            raise StopIteration

    options = {"maxiter": 10**6, "maxfun": 10**6, "ftol": 1e-12, "gtol": 1e-9}
    minimize(both, x0, jac=True, method="L-BFGS-B", callback=after, options=options)


def columns(ratings: Ratings, kind: type) -> list[np.ndarray]:
    """Users, guidelines and ratings, and the number of ratings of every row."""
    return [
        ratings.user.astype(np.int64),
        ratings.guideline.astype(np.int64),
        ratings.helpful.astype(kind),
        ratings.per_user().astype(kind),
        ratings.per_guideline().astype(kind),
    ]


def watched(run: Callable, ratings: Ratings, rate: float, target: float, seconds: float) -> dict:
    """Run until the loss is at most `target`, or stalls, or time is up.

    Gives the seconds to the target (None: not reached), and where and when it ended.
    """
    best, since, end = np.inf, 0.0, {}

    def tell(taken: float, loss: float, now: Callable[[], Parameters]) -> bool:
        nonlocal best, since
        if loss < best - 1e-7:
            best, since = loss, taken
        reached = taken if loss <= target else None
        end.update(reached_s=reached, took_s=taken, now=now)
        return reached is not None or taken > seconds or taken - since > seconds / 5

    run(ratings, rate, tell)
    return end | {"parameters": end.pop("now")()}


BASELINES = {
    "JAX, optax's Adam": (adam_jax, (0.03, 0.1)),
    "PyTorch embeddings, Adam": (adam_torch, (0.03, 0.1)),
    "SciPy's L-BFGS-B": (lbfgs, (0.0,)),
}
"""Name: the function, and the learning rates of which the best is shown."""
