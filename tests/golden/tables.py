"""State dicts of the releases, written out by the tables of methods.md section 8 alone."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
VGG = (((3, 64), (64, 64)), ((64, 128), (128, 128)), ((128, 256), (256, 256), (256, 256)),
       ((256, 512), (512, 512), (512, 512)), ((512, 512),) * 3)  # fmt: skip
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def norm(key: str, channels: int) -> Shapes:
    per_channel = {f"{key}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**per_channel, f"{key}.num_batches_tracked": ()}


def resnet(depth: str) -> Shapes:
    """8.1; deeper ones repeat the last block of a stage."""
    shapes: Shapes = {}
    for index, (c_in, c_out) in enumerate(((3, 64), (64, 64), (64, 128))):
        shapes[f"layer0.{3 * index}.weight"] = (c_out, c_in, 3, 3)
        shapes |= norm(f"layer0.{3 * index + 1}", c_out)
    c_in = 128
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        planes = 32 * 2**stage
        for block in range(blocks):
            key = f"layer{stage}.{block}"
            shapes[f"{key}.conv1.weight"] = (planes, c_in, 1, 1)
            shapes[f"{key}.conv2.weight"] = (planes, planes, 3, 3)
            shapes[f"{key}.conv3.weight"] = (4 * planes, planes, 1, 1)
            for number, channels in ((1, planes), (2, planes), (3, 4 * planes)):
                shapes |= norm(f"{key}.bn{number}", channels)
            if block == 0:
                shapes[f"{key}.downsample.0.weight"] = (4 * planes, c_in, 1, 1)
                shapes |= norm(f"{key}.downsample.1", 4 * planes)
            c_in = 4 * planes
    return shapes


def vgg() -> Shapes:
    """8.2."""
    shapes: Shapes = {}
    for stage, convolutions in enumerate(VGG):
        for index, (c_in, c_out) in enumerate(convolutions):
            shapes[f"layer{stage}.{3 * index}.weight"] = (c_out, c_in, 3, 3)
            shapes[f"layer{stage}.{3 * index}.bias"] = (c_out,)
            shapes |= norm(f"layer{stage}.{3 * index + 1}", c_out)
    return shapes


def decomposed(plain: Shapes) -> Shapes:
    """8.3, with the ranks of 7.2."""
    shapes: Shapes = {}
    for key, shape in plain.items():
        name, _, leaf = key.rpartition(".")
        if len(shape) == 4:
            c_out, c_in, height, width = shape
            rank = 4 * (min(c_out, c_in * height * width) // 4)
            shapes[f"{name}.vector_S"] = (1, rank, 1, 1)
            shapes[f"{name}.conv_U.weight"] = (c_out, rank, 1, 1)
            shapes[f"{name}.conv_V.weight"] = (rank, c_in, height, width)
        elif len(plain[f"{name}.weight"]) == 4:
            shapes[f"{name}.conv_U.{leaf}"] = shape
        else:
            shapes[key] = shape
    return shapes


def meta_head(middle: int, shot: int) -> Shapes:
    """8.4, of the baseline and BAM."""
    aspp = {"0": 1, "1": 1, "2": 3, "3": 3, "4": 3}
    shapes: Shapes = {f"{n}.0.weight": (256, middle, 1, 1) for n in ("down_query", "down_supp")}
    shapes["init_merge.0.weight"] = (256, 513, 1, 1)
    for branch, side in aspp.items():
        shapes[f"ASPP_meta.layer6_{branch}.0.weight"] = (256, 256, side, side)
        shapes[f"ASPP_meta.layer6_{branch}.0.bias"] = (256,)
    shapes["res1_meta.0.weight"] = (256, 1280, 1, 1)
    shapes |= {f"{n}.weight": (256, 256, 3, 3) for n in ("res2_meta.0", "res2_meta.2", "cls_meta.0")}
    shapes |= {"cls_meta.3.weight": (2, 256, 1, 1), "cls_meta.3.bias": (2,)}
    if shot > 1:
        shapes |= {"kshot_rw.0.weight": (2, shot, 1, 1), "kshot_rw.0.bias": (2,)}
        shapes |= {"kshot_rw.2.weight": (shot, 2, 1, 1), "kshot_rw.2.bias": (shot,)}
    return shapes


def pfenet_head(middle: int) -> Shapes:
    """8.4, of both repositories."""
    shapes: Shapes = {f"{n}.0.weight": (256, middle, 1, 1) for n in ("down_query", "down_supp")}
    for i in range(4):
        shapes[f"init_merge.{i}.0.weight"] = (256, 513, 1, 1)
        shapes |= {f"beta_conv.{i}.{j}.weight": (256, 256, 3, 3) for j in (0, 2)}
        shapes[f"inner_cls.{i}.0.weight"] = (256, 256, 3, 3)
        shapes |= {f"inner_cls.{i}.3.weight": (2, 256, 1, 1), f"inner_cls.{i}.3.bias": (2,)}
    shapes |= {f"alpha_conv.{i}.0.weight": (256, 512, 1, 1) for i in range(3)}
    shapes["res1.0.weight"] = (256, 1024, 1, 1)
    shapes |= {f"{n}.weight": (256, 256, 3, 3) for n in ("res2.0", "res2.2", "cls.0")}
    return shapes | {"cls.3.weight": (2, 256, 1, 1), "cls.3.bias": (2,)}


def pyramid(ppm: str, cls: str, c: int, classes: int) -> Shapes:
    """8.4, PSPNet's head under two pairs of names."""
    shapes: Shapes = {}
    for i in range(4):
        shapes[f"{ppm}.features.{i}.1.weight"] = (c // 4, c, 1, 1)
        shapes |= norm(f"{ppm}.features.{i}.2", c // 4)
    shapes[f"{cls}.0.weight"] = (512, 2 * c, 3, 3)
    shapes |= norm(f"{cls}.1", 512)
    return shapes | {f"{cls}.4.weight": (classes, 512, 1, 1), f"{cls}.4.bias": (classes,)}


def state(source: str, method: str, backbone: str, shot: int = 1, svf: bool = False, classes: int = 16) -> Shapes:
    """The whole state dict of a released model."""
    plain = vgg() if backbone == "vgg16" else resnet(backbone)
    middle, last = (768, 512) if backbone == "vgg16" else (1536, 2048)
    shapes = decomposed(plain) if svf else dict(plain)
    if method == "base_learner":
        copies = {k.replace("layer", "encoder.", 1): v for k, v in plain.items()}
        return shapes | copies | pyramid("ppm", "cls", last, classes)
    if method == "pfenet":
        return shapes | pfenet_head(middle)
    shapes |= meta_head(middle, shot)
    if method == "bam":
        shapes |= {"gram_merge.weight": (1, 2, 1, 1), "cls_merge.weight": (1, 2, 1, 1)}
        shapes |= pyramid("learner_base.0", "learner_base.1", last, classes)
        if source == "svf":
            shapes |= {f"{k[:6]}p{k[6:]}": v for k, v in plain.items()}
    return shapes


def parameters(shapes: Shapes, svf: bool) -> int:
    """Number of trained values; what is stored under a second name counts once, what BAM's SVF copies counts."""
    total = 0
    for key, shape in shapes.items():
        alias = key.startswith("encoder.") or (key.startswith("layer") and key[6] == "p" and not svf)
        if not alias and not key.endswith(STATISTICS):
            count = 1
            for side in shape:
                count *= side
            total += count
    return total
