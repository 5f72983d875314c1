"""Requests that are not to be answered, sent to a running server; what they reach for is there."""

from __future__ import annotations

import shutil

import pytest

from langslice.errors import CheckpointError, OptionError
from langslice.mini import mini_model_path
from langslice.studio.jobs import JobRequest, Jobs
from langslice.studio.main import guarded_app, open_studio
from langslice.studio.options import StudioOptions
from langslice.studio.shelf import Shelf
from tests.studio.serving import served

HIDDEN = "not for anybody"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of models with a link out of it, and a finished job whose report is a link out of its folder."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "hidden.txt").write_text(HIDDEN)
    (root / "models/inside").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mini_model_path() / name, root / "models/inside")
    (root / "elsewhere").mkdir()
    shutil.copy(mini_model_path() / "config.json", root / "elsewhere")
    (root / "models/out").symlink_to(root / "elsewhere")
    jobs = Jobs(root / "work/jobs", command=("/bin/true",))
    job = jobs.start(JobRequest("slice", "mini", ("run",), "model: mini\n", "model=mini"))
    (job.folder / "work").mkdir()
    (job.folder / "work/report.html").symlink_to(root / "hidden.txt")
    (root / "work/jobs/aaaaaaaaaaaa").symlink_to(job.folder)
    return root, job.name


@pytest.fixture(scope="module")
def studio(place):
    with served(["mini", str(place[0] / "models")], work=place[0] / "work") as there:
        yield there


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"Host": "evil.example"}, 421),  # a name that was turned to this address
        ("/", {"Host": "127.0.0.1@evil.example"}, 421),
        ("/", {"Host": "localhost.evil.example:{port}"}, 421),
        ("/", {"Origin": "http://evil.example"}, 403),
        ("/", {"Origin": "null"}, 403),
        # A picture, or a frame, on another site's page.
        ("/start?model=mini", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}, 403),
        ("/", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, 403),
        ("/", {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}, 403),
        ("/model?model=../hidden.txt", {}, 400),
        ("/model?model=%2e%2e%2fhidden.txt", {}, 400),
        ("/model?model=/etc", {}, 400),
        ("/model?model={root}/elsewhere", {}, 400),
        ("/model?model=elsewhere", {}, 400),  # where the link leads
        ("/model?model=out", {}, 400),
        ("/model?model=inside%00", {}, 400),
        ("/jobs/../../hidden.txt/files/report", {}, 404),
        ("/jobs/..%2f..%2fhidden.txt", {}, 404),
        ("/jobs/%2e%2e", {}, 400),
        ("/jobs/aaaaaaaaaaaa", {}, 400),  # a link to a job's folder
        ("/jobs/{job}/files/report", {}, 404),  # a report that is a link
        ("/jobs/{job}/files/..%2fjob.json", {}, 404),
        ("/jobs/{job}/files/job.json", {}, 404),
        ("/static/..%2foptions.py", {}, 404),
        ("/static/../options.py", {}, 404),
        ("/size?model=mini&languages=ko&rows=1e9", {}, 400),
        ("/size?model=mini&languages=--help", {}, 400),
        ("/sentence?model=mini&text=" + "a" * 2001, {}, 400),
        ("/start?model=mini" + "&head=0:1" * 10001, {}, 0),  # more than a request line may hold
        ("/parts?model=mini&languages=" + "a" * 201, {}, 400),
        ("/start?model=mini&form=../../x", {}, 400),
    ],
)  # fmt: skip
def test_a_hostile_request_is_refused(studio, place, path, headers, status):
    root, job = place
    filled = {name: value.format(port=studio.port) for name, value in headers.items()}
    if status == 0:
        assert studio.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) in (0, 400)
        return
    answer = studio.ask(path.format(root=root, job=job), **filled)
    assert answer.status == status, answer.text[:300]
    assert HIDDEN not in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("kind=slice&model=mini&languages=ko", {}, 403),  # without the secret
        ("kind=slice&model=mini&languages=ko&secret=guessed", {}, 403),
        ("kind=slice&model=mini&languages=ko&secret={secret}", {"Origin": "http://evil.example"}, 403),
        ("kind=slice&model=mini&languages=ko&secret={secret}", {"Sec_Fetch_Site": "cross-site"}, 403),
        ('{{"kind": "slice"}}', {"Content_Type": "application/json"}, 415),
        ("kind=slice&secret={secret}&text=" + "a" * 70000, {}, 413),
        ("secret={secret}&" + "&" * 30000, {}, 400),
        ("kind=rm&model=mini&languages=ko&secret={secret}", {}, 400),
        ("kind=tradeoff&model=mini&languages=ko%3B+touch+x&secret={secret}", {}, 400),
        ("kind=tradeoff&model=/etc&languages=ko&secret={secret}", {}, 400),
    ],
)  # fmt: skip
def test_a_hostile_form_starts_nothing(studio, place, body, headers, status):
    before = sorted((place[0] / "work/jobs").iterdir())
    sent = {"Content_Type": FORM, **headers}
    answer = studio.ask("/jobs", "POST", body.format(secret=studio.secret()), **sent)
    assert answer.status == status, answer.text[:300]
    assert sorted((place[0] / "work/jobs").iterdir()) == before


def test_requests_that_no_browser_sends(studio):
    assert studio.raw(b"GET / HTTP/1.0\r\n\r\n") == 421
    assert studio.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n") in (400, 421)
    assert studio.raw(b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n") == 421
    assert studio.raw(b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n") in (0, 400)
    assert studio.raw(b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n") == 405
    assert studio.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n") == 400
    chunks = (
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
        % FORM.encode()
    )
    assert studio.raw(chunks + b"".join(b"2000\r\n" + b"a" * 0x2000 + b"\r\n" for _ in range(9))) == 413
    assert studio.ask("/").status == 200


def test_what_is_meant_for_it_is_answered_and_locked_down(studio):
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:7860"):
        assert studio.ask("/", Host=host).status == 200
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    answer = studio.ask("/", **followed)
    assert answer.status == 200 and "inside" in answer.text and ">out<" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "no-store")
    text = studio.ask("/sentence?model=mini&languages=ko&text=%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_nobody_else_is_let_in_unless_a_name_is_given(tmp_path):
    with pytest.raises(OptionError, match="lets other machines ask") as caught:
        open_studio("mini", bind="0.0.0.0", work=tmp_path / "w")
    assert "name" in (caught.value.hint or "")
    assert not (tmp_path / "w").exists()
    guard = guarded_app(["mini"], StudioOptions(bind="0.0.0.0", name="Me.hf.space", work=str(tmp_path / "w")))
    assert "me.hf.space" in guard.names
    with pytest.raises(CheckpointError, match="no such folder"):
        guarded_app([str(tmp_path / "nowhere")], StudioOptions(work=str(tmp_path / "w")))
    with pytest.raises(CheckpointError, match="is no model, and holds none"):
        Shelf([str(tmp_path)])
    with pytest.raises(CheckpointError, match="no model is called"):
        Shelf(["mini"]).find("org/other")
