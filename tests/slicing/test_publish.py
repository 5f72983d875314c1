"""Publishing: what goes, what is refused, and what is said when the hub does not answer. No hub is needed."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from langslice.cli.app import app
from langslice.errors import PublishError
from langslice.reporting import write_report
from langslice.reporting.card import card_edited
from langslice.slicing.publish import plan_upload, send
from tests.report_samples import make_slice


class Hub:
    """Stands in for huggingface_hub.HfApi: notes what it is asked, and fails on request."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def create_repo(self, repo_id, **options):
        self.calls.append(("create_repo", repo_id, options))
        if self.error is not None:
            raise self.error

    def create_branch(self, repo_id, **options):
        self.calls.append(("create_branch", repo_id, options))

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", options["repo_id"], options))
        return SimpleNamespace(commit_url="https://huggingface.co/org/name/commit/1")


@pytest.fixture
def sliced(cut_slice, tmp_path):
    return shutil.copytree(cut_slice, tmp_path / "cut")


def edit_record(folder, **changes):
    document = json.loads((folder / "slice.json").read_text())
    document.update(changes)
    (folder / "slice.json").write_text(json.dumps(document))


def uploaded(folder, patterns):
    """Files that huggingface_hub would choose by these patterns."""
    from huggingface_hub.utils import filter_repo_objects

    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(filter_repo_objects(names, allow_patterns=patterns))


def test_everything_of_the_slice_goes(sliced):
    write_report(sliced)
    hub = Hub()
    upload = plan_upload(sliced, "org/name")
    assert send(upload, private=True, revision="v1", api=hub) == "https://huggingface.co/org/name/commit/1"
    (create, branch, files) = hub.calls
    assert create == ("create_repo", "org/name", {"repo_type": "model", "private": True, "exist_ok": True})
    assert branch[2]["branch"] == "v1"
    options = files[2]
    assert options["revision"] == "v1" and options["folder_path"] == str(sliced)
    assert uploaded(sliced, options["allow_patterns"]) == sorted(path.name for path in sliced.iterdir())
    assert {"LICENSE", "README.md", "SOURCE_README.md", "report.html", "slice.json"} <= set(upload.files)
    assert upload.licence == "other, tiny-licence, LICENSE" and upload.card == "as langslice wrote it"
    assert 'name = "org/name"' in (sliced / "README.md").read_text()
    assert not card_edited(sliced / "README.md")


def test_no_create(sliced):
    hub = Hub()
    send(plan_upload(sliced, "org/name"), create=False, revision="v1", api=hub)
    assert [name for name, *_ in hub.calls] == ["upload_folder"]


def test_an_edited_card_goes_as_it_is(sliced):
    (sliced / "README.md").write_text("# mine\n")
    upload = plan_upload(sliced, "org/name")
    send(upload, api=Hub())
    assert upload.card == "as it was edited" and (sliced / "README.md").read_text() == "# mine\n"


def test_a_missing_card_is_written(sliced):
    (sliced / "README.md").unlink()
    upload = plan_upload(sliced, "org/name")
    hub = Hub()
    send(upload, api=hub)
    assert upload.card == "new" and 'name = "org/name"' in (sliced / "README.md").read_text()
    assert "README.md" in uploaded(sliced, hub.calls[-1][2]["allow_patterns"])


def test_unproven_slices_are_refused(sliced):
    edit_record(sliced, proof=None)
    with pytest.raises(PublishError, match="was never compared with its source") as error:
        plan_upload(sliced, "org/name")
    assert "`unverified`" in error.value.hint
    edit_record(
        sliced,
        proof={"passed": False, "checks": [{"name": "bytes", "passed": False, "detail": "x"}], "texts": []},
    )
    with pytest.raises(PublishError, match=r"verification of .* failed: bytes"):
        plan_upload(sliced, "org/name")
    assert plan_upload(sliced, "org/name", unproven=True).files


def test_changed_weights_are_refused(sliced):
    with (sliced / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PublishError, match=r"model\.safetensors in .* is not the file that was verified"):
        plan_upload(sliced, "org/name")
    assert plan_upload(sliced, "org/name", unproven=True).files
    edit_record(sliced, healed={"steps": 1, "settings": {"learning_rate": 1e-4}})
    upload = plan_upload(sliced, "org/name")
    assert "Nothing was trained" in (sliced / "README.md").read_text()
    send(upload, api=Hub())
    assert "It was trained after the slice" in (sliced / "README.md").read_text()


def test_unknown_files_are_refused(sliced):
    (sliced / ".env").write_text("HF_TOKEN=secret")
    (sliced / "notes[1].txt").write_text("private")
    (sliced / ".cache/huggingface").mkdir(parents=True)
    (sliced / ".cache/huggingface/upload.lock").touch()
    with pytest.raises(
        PublishError, match=r"2 files in .* were not written by langslice; nothing was uploaded\n  \.env"
    ):
        plan_upload(sliced, "org/name")
    upload = plan_upload(sliced, "org/name", include=["notes*"], leave_out=[".env"])
    hub = Hub()
    send(upload, api=hub)
    names = uploaded(sliced, hub.calls[-1][2]["allow_patterns"])
    assert "notes[1].txt" in names and ".env" not in names
    assert not [name for name in names if name.startswith(".cache")]


def test_links_and_missing_files_are_refused(sliced, tmp_path):
    (tmp_path / "outside").write_text("x")
    (sliced / "LICENSE").unlink()
    with pytest.raises(PublishError, match=r"LICENSE is missing from"):
        plan_upload(sliced, "org/name")
    (sliced / "LICENSE").symlink_to(tmp_path / "outside")
    with pytest.raises(PublishError, match=r"LICENSE in .* is a link"):
        plan_upload(sliced, "org/name")


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/na me", "-org/name", "org/"])
def test_bad_names(sliced, name):
    with pytest.raises(PublishError, match=r"is no name for a repository|does not say whose"):
        plan_upload(sliced, name)


def test_a_source_without_a_licence_is_named(zoo, tmp_path):
    out = make_slice(zoo("gpt2"), tmp_path / "cut", drop_layers=(), drop_heads=(), drop_neurons=(), output_style=None)
    upload = plan_upload(out, "org/name")
    assert upload.licence == "" and any("states no licence" in note for note in upload.notes)


def hub_errors():
    from huggingface_hub import errors

    unreached = type("ConnectError", (Exception,), {"__module__": "httpx2"})
    response = SimpleNamespace(headers={}, request=None, status_code=403)
    return {
        "switched off": (errors.OfflineModeIsEnabled("offline"), "the hub is switched off", "HF_HUB_OFFLINE"),
        "refused": (
            errors.HfHubHTTPError("403 Forbidden", response=response),
            "the hub refused\\n  403",
            "hf auth login",
        ),
        "no token": (errors.LocalTokenNotFoundError("token required"), "the hub refused", "hf auth login"),
        "client": (unreached("name resolution failed"), "cannot be reached\\n  name resolution", "network"),
        "socket": (ConnectionError("no route"), "the hub cannot be reached", "network"),
    }


@pytest.mark.parametrize("case", ["switched off", "refused", "no token", "client", "socket"])
def test_what_the_hub_says(sliced, case):
    error, said, hint = hub_errors()[case]
    with pytest.raises(PublishError, match=said) as found:
        send(plan_upload(sliced, "org/name"), api=Hub(error))
    assert hint in found.value.hint


def test_other_errors_stay_as_they_are(sliced):
    with pytest.raises(ZeroDivisionError):
        send(plan_upload(sliced, "org/name"), api=Hub(ZeroDivisionError()))


def test_offline_for_real(sliced, monkeypatch):
    """The real HfApi, with no hub to reach."""
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with pytest.raises(
        PublishError, match=r"cannot upload to org/name: the hub (is switched off|cannot be reached|refused)"
    ):
        send(plan_upload(sliced, "org/name"), token="hf_" + "x" * 34)


def test_command_dry_run(sliced):
    done = CliRunner().invoke(app, ["push", str(sliced), "org/name", "--dry-run"])
    assert done.exit_code == 0
    assert "11 files" in done.stderr or "files, " in done.stderr
    for said in (
        "model.safetensors",
        "licence: other, tiny-licence",
        "model card: as langslice wrote it",
        "nothing was uploaded (--dry-run)",
    ):
        assert said in done.stderr, said
    assert 'name = "cut"' in (sliced / "README.md").read_text()


def test_command_wants_a_yes(sliced):
    done = CliRunner().invoke(app, ["push", str(sliced), "org/name"])
    assert isinstance(done.exception, PublishError) and "publishing needs a yes" in str(done.exception)


def test_report_command(sliced, tmp_path):
    done = CliRunner().invoke(app, ["report", str(sliced), "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0 and "r.html" in done.stderr and "README.md: refreshed" in done.stderr
    assert (tmp_path / "r.html").stat().st_size > 20_000
    data = CliRunner().invoke(app, ["report", str(sliced), "--json"])
    assert json.loads(data.stdout)["parameters"]["after"] > 0
