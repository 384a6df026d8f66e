"""Which operations the time of a forward pass goes to, by PyTorch's profiler."""

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from .candidates import PLAIN, prepare_forward
from .models import build_s2d, make_clips
from .settings import Settings

ROWS = 15


@torch.no_grad()
def measure_profile(settings: Settings) -> dict[str, str]:
    """The profiler's table of the plain pass and of each mode that can be prepared, at the largest batch."""
    on_gpu = settings.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    model = build_s2d(settings.size, settings.device)
    clips = make_clips(model.config, max(settings.batch_sizes), device=settings.device)
    tables = {}
    for name in tqdm([PLAIN, *settings.modes], desc="profile"):
        try:
            forward = prepare_forward(name, model, settings.size)
            forward(*clips)
        except Exception as error:  # as in the forward part, which names what is missing
            tables[name] = f"not measured: {type(error).__name__}: {error}"
            continue
        with profile(activities=activities) as profiler:
            forward(*clips)
            if on_gpu:
                torch.cuda.synchronize()
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        tables[name] = profiler.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=50)
    return tables


__all__ = ["measure_profile"]
