# make sample   the whole chain on the bundled data set, on the CPU
# make photos VOC=FOLDER [FLAGS='--labels FILE.csv']   the chain on photographs, on the CPU (docs/YOUR_DATA.md)
# make voc8 VOC=VOCdevkit/VOC2012 [SEEDS=0,1,2] [JOBS=1] [FLAGS='--amp bf16']
#               tables 4 to 7 on eight classes of VOC at 320 pixels: on whatever GPU or CPU there is, goes on when stopped
# make test     all tests
# make lint     ruff and mypy, with the settings of pyproject.toml
# make gpu      tests, benchmarks and every stage on a GPU, in one go
# make bench    each stage's inner work beside a plain reading of the equations
PYTHON ?= python3
# Idle threads of a CPU run sleep instead of spinning: loader processes need the cores.
export OMP_WAIT_POLICY = passive

.PHONY: sample photos voc8 need-folder test lint bench gpu clean

PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

# pydensecrf2 pins a Cython that does not know Python 3.13; there it is built with a newer one.
.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then \
	  $(PIP) 'cython>=3.0.11,<3.1' setuptools wheel && $(PIP) --no-build-isolation pydensecrf2; fi
	$(PIP) -r requirements.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-optional.txt requirements-dev.txt
	$(PIP) -r requirements-optional.txt -r requirements-dev.txt
	touch $@

# Trained on all images; every fourth gets maps and masks, which is enough to see and to score.
QUARTER = --infer_list runs/mini_voc/quarter.txt --eval_list runs/mini_voc/quarter.txt --irn_batch_size 4 --irn_epochs 2

sample: .venv/installed
	.venv/bin/python -m data.mini_voc runs/mini_voc
	awk 'NR % 4 == 1' runs/mini_voc/ImageSets/Segmentation/train.txt > runs/mini_voc/quarter.txt
	.venv/bin/python run_sample.py --voc12_root runs/mini_voc --preset mini --device cpu --work_dir runs/mini $(QUARTER)

need-folder:
	@test -n "$(VOC)" || { echo "make $(MAKECMDGOALS) VOC=FOLDER: a folder in the layout of docs/YOUR_DATA.md"; exit 2; }

photos: need-folder .venv/installed-dev
	.venv/bin/python run_sample.py --voc12_root "$(VOC)" --preset lite --work_dir runs/photos $(FLAGS)

EIGHT = cat,chair,cow,dog,horse,person,sheep,sofa
SEEDS = 0,1,2
JOBS = 1

# 500 steps a run. The images are a third smaller than VOC's, so CAMs are made at their own size.
voc8: need-folder .venv/installed-dev
	.venv/bin/python -m voc12.subset --voc12_root "$(VOC)" --out runs/voc8 --long_side 320 --classes $(EIGHT) \
	  --train_list results/real8_train.txt --score_list results/real8_scored.txt
	.venv/bin/python -m tools.reproduce --table 4,5,6,7 --dataset voc12 --voc12_root runs/voc8 --name voc8 \
	  --seeds $(SEEDS) --jobs $(JOBS) --flags "--preset lite --epochs 2 --scales 1.0 --no-eval_crf \
	  --infer_list runs/voc8/ImageSets/Segmentation/train.txt $(FLAGS)"

test: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile tests

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/mypy

gpu: .venv/installed-dev
	.venv/bin/python -m benchmarks.gpu

bench: .venv/installed-dev
	.venv/bin/python -m benchmarks

clean:
	rm -rf runs/mini runs/mini_voc
