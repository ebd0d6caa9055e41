"""Several processes of one run (gloo on the CPU), and the flags for small and large machines."""

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist

from data.sample import read_list
from frame import engine
from net.pcm import pixel_correlation
from net.prototype import cosine_cam, masked_average
from refine.fusion import read_final_cam
from runtime import distributed
from tests.helpers import ROOT, TINY, files_of, losses_of, scores_of, start_script, weights_of

# 7 images and 2 of the bank: neither the batch nor what is computed can be divided by 2.
ODD = ["--batch_size", "7"]


class Processes:
    """A stage on several processes, started as torchrun does but for the imports, see tests.helpers.start_script."""

    def __init__(self, world, root, folder, stage, *flags):
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.outputs = [folder.with_name(f"{folder.name}_rank{rank}.txt") for rank in range(world)]
        arguments = ["--voc12_root", root, "--work_dir", folder, *TINY, *flags]
        environment = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": self.store.port, "TORCHELASTIC_USE_AGENT_STORE": True,
                       "TORCHELASTIC_RESTART_COUNT": 0}
        self.processes = [start_script(stage, arguments, self.outputs[rank],
                                       environment | {"RANK": rank, "LOCAL_RANK": rank}) for rank in range(world)]

    def wait(self, seconds=120) -> list[int]:
        """Exit statuses by rank. Raises TimeoutError when a process is still there after `seconds`."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        statuses = [process.exitcode for process in self.processes]
        if None in statuses:
            for process in self.processes:
                process.kill()
            raise TimeoutError(self.text())
        return statuses

    def text(self) -> str:
        return "".join(path.read_text() for path in self.outputs if path.exists())

    def wait_for(self, path, seconds=60) -> None:
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, self.text()
            time.sleep(0.01)


@pytest.fixture(scope="module")
def odd_list(mini, tmp_path_factory):
    """A list of 23 ids, which 2 processes do not divide."""
    path = tmp_path_factory.mktemp("lists") / "odd.txt"
    path.write_text("\n".join(read_list(mini / "ImageSets/Segmentation/train.txt")[:23]))
    return path


@pytest.fixture(scope="module")
def on_two(mini, odd_list, tmp_path_factory):
    """train_sfc on 2 processes."""
    folder = tmp_path_factory.mktemp("two") / "run"
    run = Processes(2, mini, folder, "train_sfc", "--train_list", odd_list, *ODD)
    assert run.wait() == [0, 0], run.text()
    return folder


def assert_same_training(folder, other, stage="train_sfc", name="sfc.pth"):
    assert losses_of(folder, stage) == pytest.approx(losses_of(other, stage), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(weights_of(folder, name), weights_of(other, name), atol=1e-5, rtol=1e-4)


def test_two_processes_train_as_one(on_two, command, odd_list, tmp_path):
    assert command("train_sfc", "--work_dir", tmp_path, "--train_list", odd_list, *ODD) == 0
    assert_same_training(on_two, tmp_path)
    machine = json.loads((on_two / "config.json").read_text())["train_sfc"]["machine"]
    assert machine["processes"] == 2


def test_passes_are_one_step(on_two, mini, command, odd_list, tmp_path):
    """--grad_accum, on one process and on two: draw of the bank, clipping and schedule are those of the whole step."""
    flags = ["--train_list", odd_list, *ODD]
    assert command("train_sfc", "--work_dir", tmp_path / "one", *flags, "--grad_accum", "4") == 0
    assert_same_training(tmp_path / "one", on_two)
    run = Processes(2, mini, tmp_path / "two", "train_sfc", *flags, "--grad_accum", "3")
    assert run.wait() == [0, 0], run.text()
    assert_same_training(tmp_path / "two", on_two)


def test_without_the_bank(mini, command, tmp_path):
    flags = ["--no-ibr", "--grad_accum", "2", *ODD]
    assert command("train_sfc", "--work_dir", tmp_path / "one", "--no-ibr", *ODD) == 0
    run = Processes(2, mini, tmp_path / "two", "train_sfc", *flags)
    assert run.wait() == [0, 0], run.text()
    assert_same_training(tmp_path / "two", tmp_path / "one")


def test_a_segmentation_network_on_two_processes(mini, command, tmp_path):
    """With frozen BatchNorm; the means over pixels are those of the whole pass."""
    flags = ["--label_dir", mini / "SegmentationClass", "--seg_crop_size", "64", "--seg_batch_size", "6",
             "--grad_accum", "2", "--seg_iterations", "2", "--seg_lr", "0.001"]
    assert command("train_deeplab", "--work_dir", tmp_path / "start", *flags) == 0
    flags += ["--seg_init", tmp_path / "start/deeplab.pth"]
    assert command("train_deeplab", "--work_dir", tmp_path / "one", *flags) == 0
    run = Processes(2, mini, tmp_path / "two", "train_deeplab", *flags)
    assert run.wait() == [0, 0], run.text()
    assert_same_training(tmp_path / "two", tmp_path / "one", "train_deeplab", "deeplab.pth")


def test_a_signal_to_one_process_stops_all_at_the_same_step(on_two, mini, odd_list, tmp_path):
    folder = tmp_path / "run"
    statuses, stopped = None, 0
    while statuses != [0, 0]:
        run = Processes(2, mini, folder, "train_sfc", "--train_list", odd_list, *ODD)
        if not stopped:
            run.wait_for(folder / "tensorboard/train_sfc")                 # training is under way
            run.processes[1].terminate()
        statuses = run.wait()
        if statuses != [0, 0]:
            assert statuses == [143, 143], run.text()
            assert (folder / "train_sfc_checkpoint.pth").exists()
            assert run.text().count("to go on:\n  torchrun --nproc_per_node=2 train_sfc.py") == 1
            stopped += 1
    assert stopped == 1 and files_of(folder) == files_of(on_two)


def test_a_killed_process_ends_the_other(mini, tmp_path):
    folder = tmp_path / "run"
    run = Processes(2, mini, folder, "train_sfc", "--epochs", "1000")
    run.wait_for(folder / "tensorboard/train_sfc")
    run.processes[1].kill()
    assert run.wait(60) == [1, -signal.SIGKILL]
    assert run.text().count("error: another process of this run ended") == 1 and "Traceback" not in run.text()


def test_an_error_of_all_processes_is_said_once(mini, tmp_path):
    run = Processes(2, mini, tmp_path / "run", "eval_cam")
    assert run.wait() == [2, 2]
    assert run.text().count("error: ") == 1 and "python make_cam.py" in run.text()


def test_an_error_of_one_process_ends_all(on_two, mini, tmp_path):
    """A damaged image in the share of rank 1: its message is the only one."""
    root, folder = shutil.copytree(mini, tmp_path / "data"), shutil.copytree(on_two, tmp_path / "run")
    name = read_list(root / "ImageSets/Segmentation/train.txt")[5]          # the second batch of 4
    path = root / f"JPEGImages/{name}.jpg"
    path.write_bytes(path.read_bytes()[:-200])                             # its size can still be read
    run = Processes(2, root, folder, "make_cam", "--checkpoint", folder / "sfc.pth")
    statuses = run.wait()
    assert statuses == [1, 2] and run.text().count("error: ") == 1, run.text()
    assert f"{name}.jpg: damaged image" in run.text()


def test_the_chain_by_torchrun(mini, command, odd_list, tmp_path):
    """Every id exactly once, and the inference stages write what one process writes from the same networks."""
    flags = ["--train_list", odd_list, "--infer_list", odd_list, "--eval_list", odd_list, "--epochs", "1",
             "--no-report"]
    words = ["run_sample.py", "--voc12_root", mini, "--work_dir", tmp_path / "two", *TINY, *flags, "--num_workers", "2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *map(str, words)]
    done = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mIoU on") == 2 and done.stdout.count("train_sfc: started") == 1
    ids = sorted(read_list(odd_list))
    for folder in ("cam", "ir_label", "sem_seg"):
        assert sorted(path.stem for path in (tmp_path / "two" / folder).iterdir()) == ids
    two, irn = tmp_path / "two", shutil.copytree(tmp_path / "two", tmp_path / "irn")
    assert command("train_irn", "--work_dir", irn, *flags[:-1], "--overwrite") == 0
    assert losses_of(irn, "train_irn") == pytest.approx(losses_of(two, "train_irn"), rel=1e-5)
    torch.testing.assert_close(weights_of(irn, "irn.pth"), weights_of(two, "irn.pth"), atol=1e-4, rtol=1e-3)
    log = (tmp_path / "two/log.txt").read_text()
    assert log.count("make_cam: 23 records") == 1

    copy = shutil.copytree(tmp_path / "two", tmp_path / "one")
    config = json.loads((copy / "config.json").read_text())
    for stage in ("make_cam", "eval_cam", "cam_to_ir_label", "make_sem_seg_labels", "eval_sem_seg"):
        del config[stage]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "metrics.json").unlink()
    for folder in ("cam", "ir_label", "sem_seg"):
        shutil.rmtree(copy / folder)
    # Without train_irn, whose labels were made again.
    stages = "make_cam,eval_cam,cam_to_ir_label,make_sem_seg_labels,eval_sem_seg"
    assert command("run_sample", "--work_dir", copy, *flags, "--stages", stages) == 0
    assert files_of(copy) == files_of(tmp_path / "two")
    scores = scores_of(copy)
    assert scores == {stage: value for stage, value in scores_of(tmp_path / "two").items() if stage in scores}
    assert scores["eval_cam"] and scores["eval_sem_seg"]


# --- shares -------------------------------------------------------------------------------------------------------

@pytest.fixture
def as_rank(monkeypatch):
    def pretend(rank, world):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "world", lambda: world)
    return pretend


@pytest.mark.parametrize("images, passes, world", [(20, 1, 3), (20, 4, 2), (17, 2, 4), (9, 3, 3), (10, 2, 1)])
def test_shares_are_the_passes_cut_by_process(as_rank, images, passes, world):
    shares = []
    for rank in range(world):
        as_rank(rank, world)
        shares.append(torch.from_numpy(distributed.share(images, passes)))
    assert torch.cat(shares).sort().values.tolist() == list(range(images))
    for number, whole in enumerate(torch.arange(images).tensor_split(passes)):
        parts = [share.tensor_split(passes)[number] for share in shares]
        assert torch.cat(parts).tolist() == whole.tolist() and min(map(len, parts)) > 0


def test_a_shard_loses_and_doubles_nothing(as_rank):
    seen = []
    for rank in range(4):
        as_rank(rank, 4)
        seen += distributed.shard(range(10))
    assert sorted(seen) == list(range(10))


def test_more_processes_than_images_are_refused(mini, tmp_path):
    run = Processes(2, mini, tmp_path / "run", "train_sfc", "--batch_size", "1", "--no-ibr")
    assert run.wait() == [2, 2] and run.text().count("error: a batch of 1 images cannot be cut") == 1


def test_only_trained_batchnorm_is_synchronised():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Sequential(torch.nn.BatchNorm2d(2).eval()))
    weight = model[0].weight
    engine.synchronise_batchnorm(model)
    assert isinstance(model[0], torch.nn.SyncBatchNorm) and model[0].weight is weight
    assert type(model[1][0]) is torch.nn.BatchNorm2d


# --- precision and memory layout ----------------------------------------------------------------------------------

def test_bf16_trains_and_goes_on_after_an_interruption(command, monkeypatch, tmp_path):
    class Stop(Exception):
        pass

    def stop_after_save(*arguments, save=engine._save):
        save(*arguments)
        raise Stop

    flags = ["--amp", "bf16"]
    for folder in ("off", "bf16"):
        assert command("train_sfc", "--work_dir", tmp_path / folder, *(flags if folder == "bf16" else [])) == 0
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_save", stop_after_save)
        with pytest.raises(Stop):
            command("train_sfc", "--work_dir", tmp_path / "again", *flags)
    assert command("train_sfc", "--work_dir", tmp_path / "again", *flags) == 0
    assert files_of(tmp_path / "again") == files_of(tmp_path / "bf16") != files_of(tmp_path / "off")
    assert losses_of(tmp_path / "bf16") == pytest.approx(losses_of(tmp_path / "off"), rel=0.05)
    assert {tensor.dtype for tensor in weights_of(tmp_path / "bf16").values()} == {torch.float32, torch.int64}
    assert command("make_cam", "--work_dir", tmp_path / "bf16", *flags) == 0


def test_pcm_and_prototypes_stay_in_float32():
    torch.manual_seed(0)
    cam, feature, seeds = torch.rand(2, 3, 5, 5), torch.randn(2, 8, 5, 5), torch.ones(2, 3, 5, 5)
    for function, arguments in ((pixel_correlation, (cam, feature)), (masked_average, (feature, seeds)),
                                (cosine_cam, (feature, torch.randn(2, 3, 8)))):
        with torch.autocast("cpu", torch.bfloat16):
            inside = function(*arguments)
        assert torch.equal(inside, function(*arguments))
        assert function(*(x.bfloat16() for x in arguments)).dtype == torch.float32


def test_fp16_is_refused_on_the_cpu(command, capsys, tmp_path):
    assert command("train_sfc", "--work_dir", tmp_path, "--amp", "fp16") == 2
    assert "--amp bf16" in capsys.readouterr().err


def test_a_scaled_loss_gives_the_same_step_and_its_scale_is_kept(tmp_path):
    def training(scaler):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        optimizer, scheduler = engine.poly_sgd([{"params": list(model.parameters()), "lr": 0.1}], 4, 0.0, 0.0)
        return engine.Training(model, optimizer, scheduler, lambda part, _: {"total": model(part[0]).square().mean()},
                               None, 4, 2, clip_norm=0.01, scaler=scaler)

    def scaler(scale):
        return torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)

    plain, scaled = training(torch.amp.GradScaler("cpu", enabled=False)), training(scaler(1024.0))
    for each in (plain, scaled):
        engine.train_step(each, each.loss, [torch.arange(6.0).view(2, 3)], 0)
    torch.testing.assert_close(scaled.model.state_dict(), plain.model.state_dict())
    engine._save(scaled, tmp_path / "checkpoint.pth", 1, {}, [])
    resumed = training(scaler(2.0))
    assert engine._resume(resumed, tmp_path / "checkpoint.pth")[0] == 1 and resumed.scaler.get_scale() == 2048.0


@pytest.mark.parametrize("flag", ["--channels_last", "--compile"])
def test_memory_layout_and_compilation_change_rounding_alone(command, monkeypatch, tmp_path, flag):
    # The tests need no compiler; what would cut a network into several graphs is an error.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    stages = ["--stages", "train_sfc,make_cam,cam_to_ir_label,train_irn", "--no-report", "--epochs", "1"]
    for folder, flags in (("off", []), ("on", [flag])):
        assert command("run_sample", "--work_dir", tmp_path / folder, *stages, *flags) == 0
    assert_same_training(tmp_path / "on", tmp_path / "off")
    assert losses_of(tmp_path / "on", "train_irn") == pytest.approx(losses_of(tmp_path / "off", "train_irn"), rel=1e-2)
    for path in (tmp_path / "off/cam").iterdir():
        on, off = (read_final_cam(tmp_path / folder / "cam" / path.name, 4, 1.0, None)[0] for folder in ("on", "off"))
        torch.testing.assert_close(on, off, atol=0.02, rtol=0)
