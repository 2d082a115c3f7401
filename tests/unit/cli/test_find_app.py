from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chervil.cli.find_app import AppBroken, AppNotFound, enter_workdir, find_app, user_traceback

APP = "from chervil import Chervil\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Writes files of a project into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    enter_workdir(None)

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if not name.startswith("chervil"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("files", "name", "main"),
    [
        ({"fa_a": APP + "app = Chervil('a')"}, "fa_a", "a"),
        ({"fa_b": APP + "celery = Chervil('b')"}, "fa_b", "b"),
        ({"fa_c": APP + "whatever = Chervil('c')"}, "fa_c", "c"),
        ({"fa_d": APP + "other = Chervil('x')\napp = Chervil('d')"}, "fa_d", "d"),
        ({"fa_e": APP + "x = Chervil('x')\ny = Chervil('y')"}, "fa_e:y", "y"),
        ({"fa_f": APP + "x = Chervil('x')\ny = Chervil('y')"}, "fa_f.y", "y"),
        ({"fa_g": APP + "class Box: app = Chervil('g')"}, "fa_g:Box.app", "g"),
        ({"p1__in____init__": "", "p1__in__app": APP + "app = Chervil('h')"}, "p1", "h"),
        ({"p2__in____init__": "", "p2__in__celery": APP + "app = Chervil('i')"}, "p2", "i"),
        ({"p3__in____init__": "", "p3__in__chervil": APP + "x = Chervil('j')"}, "p3", "j"),
        ({"p4__in____init__": "", "p4__in__sub": APP + "app = Chervil('k')"}, "p4.sub", "k"),
        ({"p5__in____init__": "from p5.celery import app\n",
          "p5__in__celery": APP + "app = Chervil('l')"}, "p5", "l"),
        ({"p6__in____init__": "from p6 import app\n",
          "p6__in__app": APP + "app = Chervil('m')"}, "p6", "m"),
    ],
)  # fmt: skip
def test_found(project: Callable[..., None], files: dict[str, str], name: str, main: str) -> None:
    project(**files)
    assert find_app(name).main == main


@pytest.mark.parametrize(
    ("files", "name", "says"),
    [
        ({}, "fb_none", "no module 'fb_none'"),
        ({"fb_hello": APP + "app = Chervil('x')"}, "fb_helo", "Did you mean 'fb_hello'"),
        ({"fb_shop": APP + "app = Chervil('x')"}, "zzz", "define an app: fb_shop"),
        ({"fb_a": "x = 1"}, "fb_a", "no app in module 'fb_a'"),
        ({"fb_b": APP + "a = Chervil('a')\nb = Chervil('b')"}, "fb_b", "-A fb_b:a, -A fb_b:b"),
        ({"fb_c": APP + "app = Chervil('a')"}, "fb_c:application", "its apps: -A fb_c:app"),
        ({"fb_d": "application = 1"}, "fb_d:aplication", "did you mean 'application'"),
        ({"fb_e": "app = 'text'"}, "fb_e", "not an app but a builtins.str"),
        ({"fb_f": "app = 'text'"}, "fb_f:app", "not an app but a builtins.str"),
        ({"fb_g": ""}, "fb_g.py", "try -A fb_g"),
        ({"p9__in____init__": ""}, "p9", "p9, p9.app, p9.celery, p9.chervil"),
        ({"p8__in____init__": ""}, "p8.nothing", "has no attribute 'nothing'"),
        ({}, "", "not the name of a module"),
        ({"fb_h": ""}, "fb_h.x.y", "'fb_h' is there, but 'fb_h.x.y' is not in it"),
    ],
)
def test_not_found(
    project: Callable[..., None], files: dict[str, str], name: str, says: str
) -> None:
    project(**files)
    with pytest.raises(AppNotFound) as caught:
        find_app(name)
    assert says in caught.value.message


def test_an_app_of_celery_is_recognised(project: Callable[..., None]) -> None:
    project(fc_old="class Celery: pass\nCelery.__module__ = 'celery.app.base'\napp = Celery()\n")
    with pytest.raises(AppNotFound, match="from chervil import Chervil as Celery"):
        find_app("fc_old")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1/0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("raise ValueError('first\\nsecond')", "second"),
    ],
)
@pytest.mark.parametrize("attribute", ["", ":app", ".app"])
def test_an_error_in_the_module_shows_the_users_traceback(
    project: Callable[..., None],
    code: str,
    error: str,
    attribute: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project(fd_broken=f"# a comment\n{code}\n")
    with pytest.raises(AppBroken) as caught:
        find_app(f"fd_broken{attribute}")
    caught.value.show()
    shown = capsys.readouterr().err
    assert error in shown
    assert "fd_broken.py" in shown
    assert "find_app.py" not in shown
    assert "importlib" not in shown
    assert shown.rstrip().splitlines()[-1].startswith("Error: importing fd_broken")


def test_traceback_of_a_nested_import_keeps_the_users_frames(
    project: Callable[..., None],
) -> None:
    project(fe_outer="import fe_inner\n", fe_inner="raise RuntimeError('deep')\n")
    with pytest.raises(AppBroken) as caught:
        find_app("fe_outer")
    text = user_traceback(caught.value.error)
    assert text.index("fe_outer.py") < text.index("fe_inner.py") < text.index("deep")


def test_a_missing_submodule_of_a_dependency_is_not_taken_for_the_app(
    project: Callable[..., None],
) -> None:
    project(ff_a="import ff_a_missing_part\n")
    with pytest.raises(AppBroken, match="ff_a_missing_part"):
        find_app("ff_a")
