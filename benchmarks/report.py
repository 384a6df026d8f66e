"""The tables of a run, as Markdown."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from .candidates import PLAIN, VIDEOMAE, VIDEOMAE_FAST, commit_of

_MIB = 2**20


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(summary: dict[str, Any], digits: int = 2) -> str:
    """Median and quartiles."""
    low, high = summary["quartiles"]
    return f"{summary['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def milliseconds(summary: dict[str, Any]) -> str:
    """Median and quartiles, of seconds."""
    return spread({"median": 1e3 * summary["median"], "quartiles": [1e3 * q for q in summary["quartiles"]]}, 1)


def render(results: dict[str, Any]) -> str:
    """The tables of all parts that were measured; `results` is what `results.json` holds."""
    settings = results["settings"]
    parts = [
        "# Speed",
        f"Medians of {settings['rounds']} rounds in which the candidates took turns, with quartiles; times are of the "
        f"{settings['clock_name']} clock. Weights and clips are random. Ratios compare times of the same round.",
        table(["run", ""], [[key, str(value)] for key, value in results["provenance"].items()]),
    ]
    if results.get("not_measured"):
        parts.append(table(["part not measured", "why"], [[*item] for item in results["not_measured"].items()]))
    renderers = {
        "forward": partial(_forward, device=settings["device"]),
        "training": _training,
        "processors": _processors,
        "scaling": _scaling,
        "timeline": _timeline,
        "archive": _archive,
        "profile": _profile,
    }
    parts += [renderers[name](results[name]) for name in renderers if name in results]
    return "\n\n".join(parts) + "\n"


def _forward(results: dict[str, Any], device: str) -> str:
    parts = ["## Forward pass"]
    for run in results["runs"]:
        parts.append(f"### Batch of {run['batch']}")
        parts.append(
            "(a) is the forward pass written down plainly (`benchmarks/plain_model.py`), (b) transformers' VideoMAE, "
            "both in float32." + _say_fast_path(results["onednn_is_faster"])
        )
        parts.append(_forward_times(run))
        parts.append(_forward_errors(run, results.get("reference_device", device) != device))
        products = "; ".join(f"{name}: {value / 1e9:,.0f}" for name, value in run["matrix_products"].items())
        parts.append(
            f"Products of square matrices in the same rounds, in GFLOP/s: {products}. The faster one "
            "of each precision is the peak."
        )
        plain = run["candidates"][PLAIN]
        where = results.get("reference_device", device)
        on_device = f" on the {where}" if where != device else ""
        parts.append(
            f"Errors are against (a) in float32{on_device}, over {results['num_clips']} clips whose logits spread by "
            f"{plain['logits_spread']:.3g} (standard deviation); (a) itself is "
            f"{plain['largest_error_of_float32']:.1e} from float64. The share of the "
            "peak counts the operations of float32 for every mode."
        )
        if any(facts.get("memory") for facts in run["candidates"].values()):
            parts.append(
                "Memory is that of a second call, in a process of its own: over what was there before it, and of the "
                "whole process. What a library keeps from the first call (as ONNX Runtime does) is missing in the "
                "first number."
            )
    if results["unavailable"]:
        parts.append(table(["mode not measured", "why"], [[*item] for item in results["unavailable"].items()]))
    return "\n\n".join(parts)


def _say_fast_path(onednn_is_faster: dict[str, bool]) -> str:
    if not onednn_is_faster:
        return ""
    asked = ", ".join(f"{'yes' if is_faster else 'no'} in {name}" for name, is_faster in onednn_is_faster.items())
    return f" The fast path (`use_fast_cpu`) asks oneDNN where it was faster when tried: {asked}."


def find_commit_name(candidates: dict[str, Any]) -> str | None:
    """The name of a commit's model in float32, if one was measured."""
    return next((name for name in candidates if commit_of(name) is not None), None)


def _forward_times(run: dict[str, Any]) -> str:
    rows = []
    commit = find_commit_name(run["candidates"])
    for name, facts in run["candidates"].items():
        rows.append(
            [
                name,
                spread(facts["seconds"], 3),
                spread(facts["times_as_fast_as_plain"]),
                spread(facts["time_over_videomae"]),
                *([] if commit is None else [_times_as_fast_as_commit(facts)]),
                f"{facts['flops'] / 1e9:,.1f}" if "flops" in facts else "",
                f"{100 * facts['share_of_peak']:.0f} %" if "share_of_peak" in facts else "",
                f"{facts['clips_per_hour']:,.0f}",
                _faults(facts),
                *_memory(facts),
            ]
        )
    header = ["", "seconds", "times as fast as (a)", "time over (b)"]
    if commit is not None:
        header.append(f"times as fast as {commit}, in the same precision")
    header += ["GFLOP", "share of peak", "clips per hour"]
    return table([*header, "page faults", "memory of the call, MiB", "of the process, MiB"], rows)


def _forward_errors(run: dict[str, Any], has_other_reference: bool) -> str:
    none = (VIDEOMAE, VIDEOMAE_FAST) if has_other_reference else (PLAIN, VIDEOMAE, VIDEOMAE_FAST)
    rows = [
        [
            name,
            f"{facts['largest_error']:.1e}",
            f"{100 * facts['agreement']:.0f} %",
            f"{facts['cold_start']:.1f}",
            facts["precision_note"] or "",
        ]
        for name, facts in run["candidates"].items()
        if name not in none
    ]
    return table(["", "largest error of logits", "same class", "cold start, s", "precision"], rows)


def _times_as_fast_as_commit(facts: dict[str, Any]) -> str:
    return spread(facts["times_as_fast_as_commit"]) if "times_as_fast_as_commit" in facts else ""


def _faults(facts: dict[str, Any]) -> str:
    faults = facts.get("page_faults")
    return "" if faults is None else f"{faults:,}"


def _memory(facts: dict[str, Any]) -> list[str]:
    memory = facts.get("memory")
    return ["", ""] if memory is None else [f"{memory[name] / _MIB:,.0f}" for name in ("call", "peak")]


def _training(results: dict[str, Any]) -> str:
    candidates = results["candidates"]
    plain = candidates[PLAIN]
    parts = [
        "## Training step",
        f"Forward, cross-entropy and backward of {results['batch']} clip{'' if results['batch'] == 1 else 's'}, with "
        f"the ViT frozen: {plain['trained_parameters']:,} parameters are trained. (a) is the plain forward pass in "
        "float32, and ours is as `freeze_for_video_tuning` leaves the model, with the prompt layers' intermediate "
        "results computed again for the gradient. Autocast is the Trainer's `bf16`. The error of a gradient is the "
        "norm of its difference from (a)'s over the norm of (a)'s.",
        _training_times(candidates),
        "Memory is that of a second step, in a process of its own: over what was there before it, and of the whole "
        "process; and what the forward pass keeps for the backward pass.",
        _training_memory(candidates),
    ]
    return "\n\n".join(parts)


def _training_times(candidates: dict[str, Any]) -> str:
    commit = find_commit_name(candidates)
    rows = [
        [
            name,
            spread(facts["seconds"], 3),
            spread(facts["times_as_fast_as_plain"]),
            *([] if commit is None else [_times_as_fast_as_commit(facts)]),
            f"{facts['flops'] / 1e9:,.1f}",
            _faults(facts),
            f"{facts['largest_gradient_error']:.1e}",
        ]
        for name, facts in candidates.items()
    ]
    header = ["", "seconds", "times as fast as (a)", *([] if commit is None else [f"times as fast as {commit}"])]
    return table([*header, "GFLOP", "page faults", "largest gradient error"], rows)


def _training_memory(candidates: dict[str, Any]) -> str:
    """Every amount with its share of (a)'s and of the commit's."""
    commit = find_commit_name(candidates)
    yardsticks = {"over (a)'s": candidates[PLAIN]}
    if commit is not None:
        yardsticks[f"over {commit}'s"] = candidates[commit]
    amounts = {"of the step, MiB": "call", "of the process, MiB": "peak", "kept for backward, MiB": "kept"}
    header = ["memory", *(column for amount in amounts for column in (amount, *yardsticks))]
    rows = []
    for name, facts in candidates.items():
        row = [name]
        for key in amounts.values():
            size = _amount(facts, key)
            row.append("" if size is None else f"{size / _MIB:,.0f}")
            for yardstick in yardsticks.values():
                whole = _amount(yardstick, key)
                row.append("" if size is None or not whole else f"{size / whole:.2f}")
        rows.append(row)
    return table(header, rows)


def _amount(facts: dict[str, Any], key: str) -> int | None:
    """Bytes of a step, a process, or what is kept for the backward pass."""
    return facts["saved_bytes"] if key == "kept" else (facts.get("memory") or {}).get(key)


def _processors(results: dict[str, Any]) -> str:
    parts = ["## From a file to scores"]
    for name, stages in results["videos"].items():
        whole = stages["pipeline, all"]["seconds"]["median"] if "pipeline, all" in stages else None
        rows = [
            [
                stage,
                milliseconds(facts["seconds"]),
                "" if whole is None else f"{100 * facts['seconds']['median'] / whole:.0f} %",
            ]
            for stage, facts in stages.items()
        ]
        parts += [f"### {name}", table(["stage", "milliseconds", "of the pipeline"], rows)]
    if results["unavailable"]:
        parts.append(table(["stage not measured", "why"], [[*item] for item in results["unavailable"].items()]))
    return "\n\n".join(parts)


def _scaling(results: dict[str, Any]) -> str:
    units = {"batch": "clips", "frames": "frames of a clip", "pixels": "patches of a frame"}
    rows = []
    for axis, what in units.items():
        measured, fit = results[axis], results[axis]["fit"]
        values = ", ".join(
            f"{x}: {seconds['median']:.2f}" for x, seconds in zip(measured["x"], measured["seconds"], strict=True)
        )
        rows.append([f"{axis} ({values} s)", what, *_fit(fit)])
    header = ["measured, float32", "against", "seconds = slope * it + constant", "largest distance", "power"]
    timeline = results["timeline"]
    if "not_measured" in timeline:
        said = f"The timeline was not measured: {timeline['not_measured']}."
        return "\n\n".join(["## How the time grows", table(header, rows), said])
    values = ", ".join(
        f"{name}: {fact['windows']} windows, {fact['seconds']['median']:.1f} s"
        for name, fact in timeline["points"].items()
    )
    rows.append([f"timeline ({values})", "windows", *_fit(timeline["fit"])])
    return "\n\n".join(
        [
            "## How the time grows",
            table(header, rows),
            f"A raw video takes {timeline['seconds_per_second_of_face']:.2f} s for every second that a face is in "
            f"it, without the face detector's time: an hour is enough for "
            f"{60 / timeline['seconds_per_second_of_face']:.0f} minutes of one face.",
        ]
    )


def _fit(fit: dict[str, float]) -> list[str]:
    line = f"{fit['slope']:.4g} * it {'+' if fit['intercept'] >= 0 else '-'} {abs(fit['intercept']):.3g}"
    return [line, f"{100 * fit['largest_residual']:.1f} %", f"{fit['exponent']:.2f}"]


def _timeline(results: dict[str, Any]) -> str:
    parts = [
        "## Whole videos",
        f"{results['seconds']:g} s of made video each. {say_detector(results)} Shares are of the whole time: those of "
        "stages that overlap can be more than 100 % together.",
    ]
    for video in results["videos"]:
        candidates = video["candidates"]
        stages = list(dict.fromkeys(stage for facts in candidates.values() for stage in facts["shares"]))
        rows = [
            [
                name,
                spread(facts["real_time_factor"]),
                spread(facts["seconds"]),
                *(f"{100 * facts['shares'][s]['median']:.0f} %" if s in facts["shares"] else "" for s in stages),
                f"{facts['windows']}",
                *_compare_timelines(facts),
            ]
            for name, facts in candidates.items()
        ]
        header = ["", "seconds of video a second", "seconds", *stages, "windows"]
        parts.append(f"### {video['width']}x{video['height']}, faces: {video['faces']}")
        parts.append(table([*header, "times as fast", "as", "largest difference of scores"], rows))
        wrong = [
            f"{name}: {facts['tracks']}" for name, facts in candidates.items() if facts["tracks"] != video["faces"]
        ]
        if wrong:
            parts.append(f"**Not as many faces were followed as there are**: {'; '.join(wrong)}.")
    if results["unavailable"]:
        parts.append(table(["not measured", "why"], [[*item] for item in results["unavailable"].items()]))
    return "\n\n".join(parts)


def say_detector(results: dict[str, Any]) -> str:
    """How the faces of whole videos were found."""
    if results["stand_in"] is None:
        return f"Faces are found by {results['detector']}."
    return f"**No face detector ran**, and its time is missing: the boxes are known. ({results['stand_in']}.)"


def _compare_timelines(facts: dict[str, Any]) -> list[str]:
    if "compared_with" not in facts:
        return ["", "", ""]
    difference = facts["largest_difference"]
    return [
        spread(facts["times_as_fast"]),
        facts["compared_with"],
        "other windows" if difference is None else f"{difference:.1e}",
    ]


def _archive(results: dict[str, Any]) -> str:
    times, count = results["times"], results["videos"]
    whole = times["job"]["median"]
    rows = [
        [
            part,
            spread(summary),
            f"{100 * summary['median'] / whole:.1f} %",
            "" if part == "start-up" else f"{summary['median'] / count:.3f}",
        ]
        for part, summary in times.items()
    ]
    length = count * results["seconds"]
    later = whole - times["start-up"]["median"]
    over = (later - times["analysis"]["median"]) / count
    parts = [
        "## An archive",
        f"{count} videos of {results['seconds']:g} s, {results['width']}x{results['height']}, faces: "
        f"{results['faces']}, in float32. {say_detector(results)} Stages of the analysis that overlap can be more "
        "than the whole of it together.",
        table(["", "seconds", "of the job", "seconds a video"], rows),
        f"Hours of video an hour: {length / whole:.2f}, and {length / later:.2f} once the model is loaded. Each video "
        f"takes {over:.3f} s over its analysis.",
    ]
    if results["without_face"]:
        parts.append(f"**No face was found** in {results['without_face']} of {count} videos.")
    return "\n\n".join(parts)


def _profile(results: dict[str, str]) -> str:
    parts = ["## Where the time goes"]
    for name, text in results.items():
        parts += [f"### {name}", f"```\n{text.rstrip()}\n```"]
    return "\n\n".join(parts)


__all__ = ["find_commit_name", "milliseconds", "render", "spread", "table"]
