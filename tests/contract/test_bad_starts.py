"""docs/deployment.md lists the error line of every failed start; these tests produce the lines."""

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solo_models.bundle import CATEGORIES, read_bundle
from solo_models.demo import demo_bundle
from solo_server.backends import choose
from solo_server.backends.gpu.driver.driver import open_device
from solo_server.backends.gpu.tensorrt.build import check_gpu
from solo_server.commands import serve
from solo_server.commands.open_pipeline import open_repository
from solo_server.http.api_keys import KeyRing
from solo_server.http.app import create_app
from solo_server.service.service import Service
from solo_server.settings import Settings
from solo_server.system.listener import listen
from support.gpu import fake_driver
from support.gpu.fake_driver import FakeDriver
from support.gpu.fake_tensorrt_builder import V100, Workshop
from support.paths import ROOT

PAGE = (ROOT / "docs/deployment.md").read_text()
ROWS = re.findall(
    r"^\| (.+?) \| `(.+?)` \| (.+?) \|$", PAGE.split("| what is wrong |")[1].split("\n\n")[0], re.MULTILINE
)
LINES = {what: line for what, line, _ in ROWS}
BLANKS = re.compile(r"\b(FOLDER|FILE|HOST|NUMBER|NAME|REASON)\b")
NOBODY = 65_534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so become another user for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


def no_model(folder: Path) -> None:
    read_bundle(folder / "nothing")


def nothing_mounted(folder: Path) -> None:
    read_bundle(folder)


def some_other_folder(folder: Path) -> None:
    (folder / "photo.jpg").touch()
    read_bundle(folder)


def a_checkpoint(folder: Path) -> None:
    (folder / "my.pth").write_bytes(b"\x80\x02}q\x00.")
    read_bundle(folder / "my.pth")


def a_folder_with_a_checkpoint(folder: Path) -> None:
    (folder / "my.pth").write_bytes(b"\x80\x02}q\x00.")
    read_bundle(folder)


def an_onnx_file(folder: Path) -> None:
    read_bundle(shutil.copyfile(spoilt(folder) / "masks.onnx", folder / "my.onnx"))


def a_bundle_in_its_place(folder: Path) -> None:
    served(Settings(models=spoilt(folder)))


def model_damaged(folder: Path) -> None:
    content = bytearray((spoilt(folder) / "masks.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model" / "masks.onnx").write_bytes(content)
    read_bundle(folder / "model")


def model_cut_short(folder: Path) -> None:
    (spoilt(folder) / "masks.onnx").write_bytes(b"x")
    read_bundle(folder / "model")


def model_not_readable(folder: Path) -> None:
    (spoilt(folder) / "masks.onnx").chmod(0)
    with as_nobody():
        read_bundle(Path("model"))


def no_folder_of_models(folder: Path) -> None:
    served(Settings(models=folder / "nothing"))


def nothing_in_it(folder: Path) -> None:
    served(Settings(models=folder))


def something_else_in_it(folder: Path) -> None:
    (folder / "photos").mkdir()
    served(Settings(models=folder))


def models_not_readable(folder: Path) -> None:
    (folder / "models").mkdir(mode=0)
    with as_nobody():
        served(Settings(models=Path("models")))


def no_such_default_model(folder: Path) -> None:
    spoilt(folder)
    served(Settings(models=folder, default_model="person"))


def served(settings: Settings) -> None:
    """What `solo serve` does first: list the models, before it opens any."""

    async def started() -> None:
        service = Service(open_repository(settings), settings)
        try:
            await service.start()
        finally:
            service.stop()

    asyncio.run(started())


def no_file_of_keys(folder: Path) -> None:
    KeyRing.read(Settings(api_keys_file=folder / "keys"))


def keys_not_readable(folder: Path) -> None:
    (folder / "keys").touch(mode=0)
    with as_nobody():
        KeyRing.read(Settings(api_keys_file=Path("keys")))


def keys_are_a_folder(folder: Path) -> None:
    KeyRing.read(Settings(api_keys_file=folder))


def no_key_in_the_file(folder: Path) -> None:
    (folder / "keys").write_text("# none yet\n")
    KeyRing.read(Settings(api_keys_file=folder / "keys"))


def created(settings: Settings) -> None:
    """What `solo serve` does after that: make the application, before it opens a model."""
    create_app(open_repository(settings), settings)


def port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen("127.0.0.1", taken.getsockname()[1])


def address_of_another_machine(folder: Path) -> None:
    listen("192.0.2.1", 0)


def cache_not_writable(folder: Path) -> None:
    def refused(*arguments: Any) -> None:
        raise OSError(30, "Read-only file system", str(folder))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solo_server.backends.gpu.open.open_cuda", refused)
        choose.choose(bundle := read_bundle(demo_bundle()), "tensorrt").open(bundle, choose.Pool(1))


def no_gpu(folder: Path) -> None:
    driver = FakeDriver()
    driver.codes = {"cuInit": "CUDA_ERROR_NO_DEVICE"}
    opened_with(driver)


def driver_too_old(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fake_driver._ANSWERS, "cuDriverGetVersion", lambda fake: 11_040)
        opened_with(FakeDriver())


def opened_with(driver: FakeDriver | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuda.bindings.driver", driver)
        open_device()


def tensorrt_too_new(folder: Path) -> None:
    check_gpu("10.16.1.11", V100, "fp16")


def engine_of_another_gpu(folder: Path) -> None:
    workshop = Workshop(folder)
    workshop.cache().engine_for(workshop.bundle, CATEGORIES, workshop.profiles)
    elsewhere = workshop.cache(replace(V100, name="Tesla V100-PCIE"), build=False)
    elsewhere.engine_for(workshop.bundle, CATEGORIES, workshop.profiles)


STARTS: dict[str, Callable[[Path], object]] = {
    "no model there": no_model,
    "nothing mounted": nothing_mounted,
    "some other folder": some_other_folder,
    "a checkpoint": a_checkpoint,
    "a folder with a checkpoint": a_folder_with_a_checkpoint,
    "an ONNX file": an_onnx_file,
    "model damaged": model_damaged,
    "model cut short": model_cut_short,
    "model not readable": model_not_readable,
    "no folder of models": no_folder_of_models,
    "nothing in it": nothing_in_it,
    "a bundle in its place": a_bundle_in_its_place,
    "something else in it": something_else_in_it,
    "models not readable": models_not_readable,
    "no such default model": no_such_default_model,
    "no file of keys": no_file_of_keys,
    "keys not readable": keys_not_readable,
    "keys are a folder": keys_are_a_folder,
    "no key in the file": no_key_in_the_file,
    "port in use": port_in_use,
    "address of another machine": address_of_another_machine,
    "cache not writable": cache_not_writable,
    "GPU packages missing": lambda folder: opened_with(None),
    "no GPU, or not in the container": no_gpu,
    "driver too old": driver_too_old,
    "TensorRT too new for the GPU": tensorrt_too_new,
    "engine of another GPU, with `SOLO_BUILD_ENGINES=off`": engine_of_another_gpu,
    "path prefix of the server's own": lambda folder: created(Settings(root_path="/models")),
    "path prefix in another form": lambda folder: Settings.read({"SOLO_ROOT_PATH": "solo/"}),
    "not a prefix of image URLs": lambda folder: created(Settings(image_urls=("https://example.org",))),
    "no file of tokens": lambda folder: created(Settings(image_urls_token_file=folder / "tokens")),
    "a value that cannot be": lambda folder: Settings.read({"SOLO_PORT": "70000"}),
    "a name that is not known": lambda folder: Settings.read({"SOLO_PROT": "1"}),
}


def test_the_page_has_a_row_for_each() -> None:
    assert set(LINES) == set(STARTS)
    assert len(ROWS) == len(STARTS)


@pytest.mark.parametrize("what", STARTS)
def test_a_failed_start_prints_the_line_of_the_page(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # `nobody` may not enter the folders above
    tmp_path.chmod(0o755)
    with pytest.raises(serve._REFUSALS) as raised:
        STARTS[what](tmp_path)
    assert serve._refuse(raised.value) == 2
    pattern = BLANKS.sub(".+", re.escape(LINES[what]))
    assert re.fullmatch(f"solo serve: {pattern}\n", capsys.readouterr().err)


def spoilt(folder: Path) -> Path:
    """A copy of the demo model, to be damaged."""
    return shutil.copytree(demo_bundle(), folder / "model", copy_function=shutil.copyfile)
