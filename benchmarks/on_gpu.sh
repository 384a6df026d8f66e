#!/usr/bin/env bash
# What to measure on a machine with one NVIDIA GPU, in 10 minutes, into benchmarks/results/CARD.json:
#
#     benchmarks/on_gpu.sh [--device cuda] [--quick] [--output benchmarks/results] [--seconds 600]
#
# It needs torch >= 2.11 with torchvision, transformers >= 5.17 and PyAV, and no network. What needs more (OpenCV and
# pandas: whole videos; accelerate, flash-attn, decord, face-alignment) is listed in the JSON as not measured where it
# is missing. Every step has its limit, one that fails stops no other one, and the JSON is written anew after each.
# The steps' tables, logs and results are kept in outputs/on_gpu/.
#
# --quick tries the script with tiny models, with --device cpu on any machine; its JSON is CARD-quick.json.
# PYTHON names the interpreter, python3 by default.
set -u
cd "$(dirname "$0")/.." || exit 1

device=cuda quick="" output=benchmarks/results seconds=600 python=${PYTHON:-python3}
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=${2:?"--device needs cuda or cpu"}; shift ;;
        --quick) quick="--quick --rounds 1 --no-memory" ;;
        --output) output=${2:?"--output needs a folder"}; shift ;;
        --seconds) seconds=${2:?"--seconds needs a number"}; shift ;;
        *) echo "on_gpu.sh: unknown option $1" >&2; sed -n 2,4p "$0" >&2; exit 2 ;;
    esac
    shift
done

card=$("$python" -m benchmarks.collect --name-of "$device") || { echo "on_gpu.sh: no $device here" >&2; exit 1; }
results=$output/$card${quick:+-quick}.json
steps=outputs/on_gpu/$(date +%Y%m%d-%H%M%S)-$$
failed=0

collect() {
    "$python" -m benchmarks.collect "$steps" --output "$results"
}

# step NAME LIMIT ARGUMENTS: runs benchmarks.speed for LIMIT seconds at most, and not past the end of all
step() {
    local name=$1 limit=$2 left=$((seconds - SECONDS)) started=$SECONDS
    shift 2
    local folder=$steps/$name
    # the last option of a name counts
    local command=("$python" -m benchmarks.speed --device "$device" "$@" $quick --output "$folder")
    [ "$limit" -le "$left" ] || limit=$left
    mkdir -p "$folder"
    echo "${command[*]}" >"$folder/command.txt"
    echo "$limit" >"$folder/limit.txt"
    echo "== $name, $limit s at most"
    if [ "$limit" -lt 5 ]; then
        echo "no time was left for it" | tee "$folder/log.txt"
        echo 124 >"$folder/exit.txt"
    else
        timeout --kill-after=5 "$limit" "${command[@]}" >"$folder/log.txt" 2>&1
        echo $? >"$folder/exit.txt"
    fi
    echo $((SECONDS - started)) >"$folder/seconds.txt"
    if [ "$(cat "$folder/exit.txt")" -ne 0 ]; then
        failed=1
        echo "   exit code $(cat "$folder/exit.txt"): see $folder/log.txt"
    fi
    collect
}

# The word splitting of $modes and $quick is wanted: one word is one argument.
modes="float32 bfloat16 bfloat16-cuda-graphs"
# a compiler takes as long for tiny models
[ -n "$quick" ] || modes="$modes bfloat16-compiled-blocks"

# (1) does it run at all
[ -n "$quick" ] || step 1-quick 60 --quick --rounds 2 --no-memory --modes float32 bfloat16 bfloat16-cuda-graphs
# (2) forward and training, as shares of the peak of the matrix products measured beside
step 2-forward-1 90 --parts forward --batch-sizes 1 --no-memory --modes $modes
step 2-forward-8 90 --parts forward --batch-sizes 8 --no-memory --modes $modes
step 2-forward-64 90 --parts forward --batch-sizes 64 --rounds 3 --no-memory --modes $modes
step 2-training-1 45 --parts training --no-memory
# (3) from a file to scores
step 3-processors 45 --parts processors
step 3-timeline 90 --parts timeline --faces 1 2 6 --rounds 3
# (4) training with and without checkpointing, with its memory
step 4-training-8 120 --parts training --training-batch-size 8 --rounds 3
# (5) other ways to run it, against float32 on the CPU
step 5-modes 60 --parts forward --reference-device cpu --rounds 3 --no-memory --modes float32 bfloat16 float16 \
    bfloat16-flash-attention float32-device-map

echo "written: $results"
exit $failed
