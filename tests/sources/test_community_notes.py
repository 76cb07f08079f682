"""Community Notes' public files."""

import zipfile

import numpy as np
import pandas as pd
import pytest
from notes_files import write
from worlds import assert_says

import aggregation as ag
from aggregation.errors import InputError
from aggregation.model.parameters import COMMUNITY_NOTES, loss


def read(folder, ratings=None, **source):
    given = ag.sections(
        source={"kind": "community-notes", "path": str(folder), **source}, ratings=ratings or {}
    )
    return ag.read(given.source, given.ratings)


def plain(ratings):
    kept = ratings[["user_id", "guideline_id", "helpful"]].astype(
        {"user_id": str, "guideline_id": str}
    )
    return kept.sort_values(["user_id", "guideline_id"], ignore_index=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notes")
    return folder, write(folder)


def scored(notes):
    """What the scorer looks at: not the old notes that a post is not misleading."""
    return notes.ratings[notes.ratings["guideline_id"].map(notes.kind) != "old"]


def test_the_last_rating_of_each_pair_is_read_from_all_parts_and_both_forms(files):
    folder, notes = files
    dataset = read(folder)
    pd.testing.assert_frame_equal(plain(dataset.ratings), plain(scored(notes)), check_dtype=False)
    assert set(dataset.ratings["helpful"]) == {0.0, 0.5, 1.0}


def test_every_row_is_accounted_for(files):
    folder, _ = files
    dataset = read(folder)
    for table, rows in dataset.counts_table().groupby("table"):
        n = rows.groupby("action")["n"].sum().to_dict()
        total = n.get("read", 0) + n.get("added", 0) - n.get("dropped", 0) - n.get("merged", 0)
        assert total == n["kept"], table
    reasons = {c.reason: c.n for c in dataset.counts}
    assert reasons["no value given"] == 3
    assert reasons["no rating of the note counts"] == 4  # two of them are old
    assert reasons["deleted notes, by their history"] == 2
    assert reasons["an old note that a post is not misleading, which is not scored"] > 0
    assert sum(c.n for c in dataset.counts if c.action == "merged") > 50


def test_notes_keep_their_texts_and_deleted_ones_say_so(files):
    folder, notes = files
    text = read(folder).guidelines.set_index("guideline_id")["text"]
    for note, kind in notes.kind.items():
        if kind in ("shared", "divisive"):
            assert text[note] == f'Note {note}: it is not "so", see https://x.example/{note}'
        if kind == "deleted":
            assert "deleted" in text[note]
    assert not set(text.index) & {n for n, kind in notes.kind.items() if kind == "unrated"}


def test_ratings_of_chosen_modeling_groups_alone(files):
    folder, notes = files
    group = scored(notes)["user_id"].map(notes.group)
    expected = scored(notes)[group.isin([1, 3])]
    pd.testing.assert_frame_equal(
        plain(read(folder, groups=[1, 3]).ratings), plain(expected), check_dtype=False
    )


def once(ratings, per_user, per_guideline):
    """Filter guidelines, users and guidelines again, each once."""
    for key, least in (
        ("guideline_id", per_guideline),
        ("user_id", per_user),
        ("guideline_id", per_guideline),
    ):
        size = ratings.groupby(key)[key].transform("size")
        ratings = ratings[size >= least]
    return ratings


def test_minima_are_applied_once_or_until_nothing_changes(tmp_path):
    notes = write(tmp_path, seed=3, users=60, notes=40, share=0.18)
    minima = {"min_per_user": 6, "min_per_guideline": 7}
    expected = once(scored(notes), 6, 7)
    found = read(tmp_path, minima | {"minima": "once"}).ratings
    pd.testing.assert_frame_equal(plain(found), plain(expected), check_dtype=False)
    repeated = read(tmp_path, minima).ratings
    assert len(repeated) < len(found)
    assert repeated.groupby("user_id", observed=True).size().min() >= 6
    assert repeated.groupby("guideline_id", observed=True).size().min() >= 7


def refused(folder, **source):
    with pytest.raises(InputError) as error:
        read(folder, **source)
    return error


def test_missing_and_damaged_files_are_named_with_a_remedy(tmp_path):
    assert_says(refused(tmp_path / "no"), tmp_path / "no", "there is no such folder")
    assert_says(refused(tmp_path), "holds no notes-00000.tsv or .zip", "download")
    write(tmp_path, users=30, notes=12)
    archive = tmp_path / "ratings-00001.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert_says(refused(tmp_path), archive, "no whole .zip", "download it again")
    archive.write_bytes(whole)
    part = tmp_path / "ratings-00000.tsv"
    part.write_text(part.read_text().replace("raterParticipantId", "rater", 1))
    assert_says(refused(tmp_path), part.name, "no column 'raterParticipantId'")


def test_a_folder_of_parts_and_unpacked_files_beside_their_zip_are_read_once(tmp_path):
    notes = write(tmp_path, users=60, notes=20)
    inside = tmp_path / "ratings"
    inside.mkdir()
    for part in list(tmp_path.glob("ratings-*")):
        part.rename(inside / part.name)
    packed = inside / "ratings-00001.zip"
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(inside)
    found = plain(read(tmp_path).ratings)
    pd.testing.assert_frame_equal(found, plain(scored(notes)), check_dtype=False)


def their_optimiser(ratings, start, steps):
    """Adam with clipped gradients and their stopping rule, in float64: (loss, steps)."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        u, g, y = (jnp.asarray(x) for x in (ratings.user, ratings.guideline, ratings.helpful))

        def objective(p):
            mu, iu, fu, ig, fg = p
            e = y - mu - iu[u] - ig[g] - fu[u] * fg[g]
            return (
                (e**2).mean()
                + 0.15 * ((iu**2).mean() + (ig**2).mean() + mu**2)
                + 0.03 * ((fu**2).mean() + (fg**2).mean())
            )

        @jax.jit
        def step(p, m, v, t):
            value, slope = jax.value_and_grad(objective)(p)
            size = jnp.sqrt(sum((s**2).sum() for s in slope))
            slope = [s * jnp.minimum(1, 1 / (size + 1e-6)) for s in slope]
            m = [0.9 * a + 0.1 * s for a, s in zip(m, slope, strict=True)]
            v = [0.999 * a + 0.001 * s**2 for a, s in zip(v, slope, strict=True)]
            moved = [
                x - 1.0 * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8)
                for x, a, b in zip(p, m, v, strict=True)
            ]
            return moved, m, v, value

        p = [jnp.asarray(x) for x in start]
        m = v = [jnp.zeros_like(x) for x in p]
        before, lowest = np.inf, np.inf
        for t in range(1, steps + 1):
            p, m, v, value = step(p, m, v, jnp.float64(t))
            lowest = min(lowest, float(value))
            if abs(before - value) <= 1e-7 or (t > 100 and value > before):
                break
            before = float(value)
        return lowest


def test_no_start_of_their_optimiser_ends_lower_and_ours_is_the_optimum(files):
    folder, _ = files
    ratings, _ = ag.encode(read(folder).ratings)
    found = ag.fit(ratings, COMMUNITY_NOTES)
    assert found.converged
    random = np.random.default_rng(0)
    u, g = ratings.n_users, ratings.n_guidelines
    for _ in range(3):
        scale = [0.0, np.sqrt(2 / u), np.sqrt(2 / u), np.sqrt(2 / g), np.sqrt(2 / g)]
        sizes = [(), u, u, g, g]
        start = [s * random.standard_normal(n) for s, n in zip(scale, sizes, strict=True)]
        assert found.objective <= their_optimiser(ratings, start, 3000) + 1e-12
    # The exact optimum of that minimum, by Newton's method of another library.
    from scipy.optimize import minimize

    p = found.parameters
    flat = np.concatenate([np.ravel(x) for x in p.arrays()])

    def objective(x):
        cut = np.split(x, np.cumsum([1, u, u, g]))
        q = ag.Parameters(cut[0][0], cut[1], cut[2][:, None], cut[3], cut[4][:, None])
        e = ratings.helpful - ag.predict(q, ratings.user, ratings.guideline)
        n = len(ratings)
        slope = [
            -2 * e.sum() / n + 0.3 * cut[0][0],
            -2 * np.bincount(ratings.user, e, u) / n + 0.3 * cut[1] / u,
            -2 * np.bincount(ratings.user, e * cut[4][ratings.guideline], u) / n
            + 0.06 * cut[2] / u,
            -2 * np.bincount(ratings.guideline, e, g) / n + 0.3 * cut[3] / g,
            -2 * np.bincount(ratings.guideline, e * cut[2][ratings.user], g) / n
            + 0.06 * cut[4] / g,
        ]
        return float(loss(q, ratings, COMMUNITY_NOTES)), np.concatenate(
            [np.ravel(s) for s in slope]
        )

    moved = flat + 0.01 * random.standard_normal(len(flat))
    best = minimize(
        objective,
        moved,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 50},
    )
    assert abs(best.fun - found.objective) < 1e-10
    intercept = best.x[1 + 2 * u : 1 + 2 * u + g]
    assert np.abs(intercept - p.guideline_intercept).max() < 1e-5
