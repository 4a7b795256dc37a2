import pytest
import torch
from opacus import GradSampleModule
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models import vision
from fedapp.models.fit import check_fits
from fedapp.models.input_layer import InputLayer, assemble
from fedapp.models.normalization import Copy

# As in conf/model/torchvision.yaml
UNTRAINED = {
    "pretrained": False,
    "weights_sha256": None,
    "trainable": "full",
    "last_k": 2,
    "lora": {},
    "feature_norm": "none",
}


def torchvision_model(schema, **options):
    return vision.torchvision_model(schema, **UNTRAINED, **options)


pytestmark = pytest.mark.slow  # large networks

FIVE = tuple("abcde")


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def of_kind(net, kind):
    return [module for module in net.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet18", 8),
        ("mobilenet_v3_small", 32),
        ("squeezenet1_0", 64),
        ("densenet121", 32),
        ("efficientnet_b0", 32),
        ("shufflenet_v2_x0_5", 32),
        ("regnet_y_400mf", 32),
        ("googlenet", 32),
        ("inception_v3", 96),
        ("swin_t", 32),
    ],
)
def test_families_fit_grey_images_and_five_classes_without_batch_norm(name, side):
    schema = Schema((1, side, side), FIVE)
    net = torchvision_model(schema, name=name, norm="group", groups=8)
    check_fits(assemble(net, InputLayer(schema)), lambda count: torch.zeros(count, 1, side, side), (5,))
    assert net(torch.randn(2, 1, side, side)).shape == (2, 5)
    assert of_kind(net, nn.BatchNorm2d) == []
    assert not any(getattr(module, "inplace", False) for module in net.modules())


def test_every_batch_norm_becomes_a_group_norm_of_the_same_width():
    schema = Schema((3, 32, 32), FIVE)
    batch, group = (torchvision_model(schema, name="resnet18", norm=norm, groups=32) for norm in ("batch", "group"))
    widths = [module.num_features for module in of_kind(batch, nn.BatchNorm2d)]
    norms = of_kind(group, nn.GroupNorm)
    assert [module.num_channels for module in norms] == widths
    assert {module.num_groups for module in norms} == {32}
    assert of_kind(batch, nn.GroupNorm) == []


def test_rgb_network_has_torchvision_s_own_parameters():
    # 11,689,512 with the 1000 classes of ImageNet, says torchvision's table of resnet18.
    net = torchvision_model(Schema((3, 32, 32), tuple(map(str, range(1000)))), name="resnet18", norm="batch", groups=8)
    assert sum(parameter.numel() for parameter in net.parameters()) == 11_689_512


def test_other_channels_change_the_first_convolution_only():
    def shapes(channels):
        net = torchvision_model(Schema((channels, 32, 32), FIVE), name="resnet18", norm="batch", groups=8)
        return {key: tuple(value.shape) for key, value in net.state_dict().items()}

    rgb, infrared = shapes(3), shapes(4)
    assert {key for key in rgb if rgb[key] != infrared[key]} == {"conv1.weight"}
    assert infrared["conv1.weight"] == (64, 4, 7, 7)


def test_regression_has_one_output():
    net = torchvision_model(Schema((3, 32, 32)), name="mobilenet_v3_small", norm="group", groups=8)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 1)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # of Opacus on the first layer, harmless
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_opacus_hooks_give_the_per_example_gradients(name):
    # Each of these changes a normalised tensor in place, on which the hooks fail without `Copy`.
    schema = Schema((3, 32, 32), FIVE)
    net = torchvision_model(schema, name=name, norm="group", groups=8)
    for module in of_kind(net, nn.Dropout):
        module.p = 0.0
    inputs = torch.randn(2, 3, 32, 32)
    net(inputs[:1]).square().sum().backward()
    # Cloned, since the wrapped network accumulates into the same tensors.
    alone = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    hooked = GradSampleModule(net, loss_reduction="sum")
    hooked(inputs).square().sum().backward()
    samples = [parameter.grad_sample[0] for parameter in net.parameters()]
    scale = max(float(gradient.abs().max()) for gradient in alone)
    assert scale > 0
    torch.testing.assert_close(samples, alone, rtol=1e-3, atol=1e-5 * scale)


def test_copy_is_equal_and_shares_no_memory():
    x = torch.randn(3)
    y = Copy()(x)
    assert torch.equal(x, y)
    assert x.data_ptr() != y.data_ptr()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "resnt18"}, r"^model.name=resnt18: torchvision has no .* Close to it: .*resnet18.* All names: https"),
        ({"name": "ResNet18"}, r"^model.name=ResNet18: .* Close to it: resnet18"),
        ({"name": "zzz"}, r"^model.name=zzz: torchvision has no classification model of that name. All names"),
        ({"norm": "layer"}, r"^model.norm=layer: must be one of batch, group"),
        ({"groups": 0}, r"^model.groups=0: must be a positive integer"),
    ],
)
def test_errors_name_key_value_and_remedy(values, message):
    with pytest.raises(ConfigError, match=message):
        torchvision_model(Schema((3, 32, 32), FIVE), **{"name": "resnet18", "norm": "group", "groups": 8, **values})


def test_tables_are_refused():
    with pytest.raises(ConfigError, match=r"^model=torchvision model.name=resnet18: takes images .* shape \(30,\)"):
        torchvision_model(Schema((30,), FIVE), name="resnet18", norm="group", groups=8)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("vit_b_32", "VisionTransformer .*Expected 224 but got 32"), ("alexnet", "AlexNet .*Output size is too small")],
)
def test_an_image_size_that_a_network_cannot_take_is_explained(name, reason):
    schema = Schema((1, 32, 32), FIVE)
    model = assemble(torchvision_model(schema, name=name, norm="group", groups=8), InputLayer(schema))
    with pytest.raises(ConfigError, match=rf"^model: {reason}. Choose another model=... or data.size=...$"):
        check_fits(model, lambda count: torch.zeros(count, 1, 32, 32), (5,))
