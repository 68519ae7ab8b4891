"""`sdfn pacs`: a real archive, Orthanc, read and answered; and archives that misbehave."""

import contextlib
import dataclasses
import ssl
import subprocess
import sys
import threading

import archives
import numpy as np
import pytest
from archives import PASSWORD, USER, Scripted, answer, answer_with_file, is_film
from pydicom import uid
from readings import PROVENANCE, reading
from test_dicom_results import FILMS, PATIENT, film

from sdfn_jax import pacs
from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.hospital import archive, multipart, rounds
from sdfn_jax.hospital.archive import Archive, Declined, NotNow, Patience
from sdfn_jax.hospital.chest_films import Query
from sdfn_jax.inference import selftest
from sdfn_jax.radiographs import reader

QUICK = Patience(connect=5, silence=10, whole=20, pauses=(0.05, 0.1, 0.2))  # a busy machine is no slow archive
ADDRESS = "https://pacs.example/dicom-web"


class Networks:
    """Stands for a lung region generator: the same mask for every film."""

    provenance = dataclasses.replace(PROVENANCE, stage=None, checkpoint=None, findings=())
    lungs = object()

    def read(self, name, radiograph, flags=()):
        mask = np.zeros((16, 16), np.float32)
        mask[3:13, 2:7] = mask[3:13, 9:14] = 0.9
        return reading(
            name=name,
            size=radiograph.shape,
            probabilities={},
            calibrated={},
            maps={},
            provenance=self.provenance,
            lung_probabilities=mask,
        )


def one_round(folder, source, target=None, networks=None, patience=QUICK):
    """Reads an archive once, and returns how many films had which outcome."""
    films = Archive("from", source, patience)
    answers = films if target is None else Archive("to", target, patience)
    made = rounds.Reader(networks or Networks(), reader.decode_with_flags, films, answers, Query(), patience)
    with made.journal(folder) as journal:
        return made.round(journal)


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("SDFN_FROM_USER", USER)
    monkeypatch.setenv("SDFN_FROM_PASSWORD", PASSWORD)


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: pacs.main([str(argument) for argument in arguments]))
    return stop.value.code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An Orthanc with two frontal chest films, a lateral one, a hand, and a film that says nothing of itself."""
    folder = tmp_path_factory.mktemp("orthanc")
    with archives.orthanc(folder) as server:
        server.add(film(folder / "a.dcm", 0, ViewPosition="PA"))
        described = {"BodyPartExamined": "", "SeriesDescription": "Thorax a.p. bed", "Modality": "CR"}
        described["syntax"] = uid.JPEG2000Lossless
        server.add(film(folder / "b.dcm", 1, **described, StudyInstanceUID="1.2.3.1"))
        other = {"SeriesInstanceUID": "1.2.3.9", "StudyInstanceUID": "1.2.3.2"}
        server.add(film(folder / "c.dcm", 0, **other, SOPInstanceUID="1.2.3.3", ViewPosition="LL"))
        other = {"SeriesInstanceUID": "1.2.3.10", "StudyInstanceUID": "1.2.3.4"}
        server.add(film(folder / "d.dcm", 0, **other, SOPInstanceUID="1.2.3.5", BodyPartExamined="HAND"))
        yield server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return selftest.unpack(tmp_path_factory.mktemp("runs"))


class TestOrthanc:
    def test_its_chest_films_are_read_and_answered_once(self, server, run, credentials, tmp_path, capsys):
        arguments = (f"--from={server.url}", f"--folder={tmp_path}", f"--checkpoint={run}")
        before = server.instances()
        assert command(*arguments) == 0
        printed = capsys.readouterr().out
        for counted in (
            "studies: 4; ",
            "films read, results stored: 2",
            "films left out, not a frontal view: 1",
            "studies without a chest film: 1",
        ):
            assert counted in printed
        assert "with the identifiers of their patients and studies" in printed and PATIENT["PatientID"] not in printed
        new = [server.data(each) for each in server.instances() if each not in before]
        assert sorted(each.Modality for each in new) == ["OT", "OT", "SEG", "SEG", "SR", "SR"]
        assert {each.StudyInstanceUID for each in new} == {PATIENT["StudyInstanceUID"], "1.2.3.1"}
        assert all(str(each.PatientName) == PATIENT["PatientName"] for each in new)
        assert command(*arguments) == 0
        assert "films done before: 3" in capsys.readouterr().out
        # Its journal is lost, and one of the results: that one is sent, and nothing else.
        (tmp_path / rounds.JOURNAL).unlink()
        lost = next(each.SOPInstanceUID for each in new if each.Modality == "SEG")
        server.ask(f"/instances/{server.instances()[lost]}", method="DELETE")
        kept = server.instances()
        changes = server.ask("/changes?last").json()["Last"]
        assert command(*arguments) == 0
        assert server.instances().keys() == kept.keys() | {lost}
        stored = server.ask(f"/changes?since={changes}&limit=100").json()["Changes"]
        assert [each["ChangeType"] for each in stored].count("NewInstance") == 1

    def test_it_may_restart_while_a_film_is_read(self, server, credentials, tmp_path):
        class Restarting(Networks):
            provenance = dataclasses.replace(Networks.provenance, lrg_checkpoint="restarting")
            restarted = False

            def read(self, *arguments):
                if not self.restarted:
                    server.stop()
                    server.start()
                    self.restarted = True
                return super().read(*arguments)

        before = server.instances()
        counts = one_round(tmp_path, server.url, networks=Restarting(), patience=Patience())
        assert counts[rounds.READ] == 2 and counts[rounds.FAILED] == 0
        assert len(server.instances()) == len(before) + 4

    def test_a_wrong_password_is_refused_with_the_places_of_a_right_one(self, server, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("SDFN_FROM_USER", USER)
        monkeypatch.setenv("SDFN_FROM_PASSWORD", "wrong-word")
        with pytest.raises(UserError, match="refuses access .401.; set the environment variables SDFN_FROM_USER and"):
            one_round(tmp_path, server.url)
        assert "wrong-word" not in "".join(capsys.readouterr())


@pytest.fixture
def films(tmp_path):
    return [film(tmp_path / f"{number}.dcm", number) for number in range(2)]


class TestBadArchives:
    @pytest.fixture
    def scripted(self, films):
        server = Scripted(*films)
        with server.serve() as server.url:
            yield server

    def failing(self, scripted, times, when=is_film):
        """Makes requests of a kind fail a number of times, in a given way."""
        left = [times]

        def decorate(way):
            def behave(handler):
                if left[0] and when(handler):
                    left[0] -= 1
                    return way(handler)
                return False

            scripted.behave = behave

        return decorate

    @pytest.mark.parametrize("how", ["in half", "without its end", "cut off"])
    def test_half_a_film_is_asked_for_again_and_never_read(self, scripted, tmp_path, how, capsys):
        half = next(iter(scripted.files.values()))[:-50_000]

        @self.failing(scripted, times=4)  # all tries of the first film
        def _(handler):
            if how == "cut off":
                handler.send_response(200)
                handler.send_header("Content-Type", "multipart/related; boundary=x")
                handler.send_header("Content-Length", "200000")
                handler.end_headers()
                handler.wfile.write(half)
                handler.close_connection = True
                return True
            return answer_with_file(handler, half, end=b"" if how == "in half" else b"\r\n--x\r\n")

        counts = one_round(tmp_path, scripted.url)
        assert (counts[rounds.FAILED], counts[rounds.READ]) == (1, 1)
        assert "; it is tried again next time" in capsys.readouterr().out
        assert one_round(tmp_path, scripted.url)[rounds.READ] == 1
        assert set(scripted.results().values()) == {1} and len(scripted.results()) == 4

    def test_an_archive_that_falls_silent_or_drips_is_left_in_bounded_time(self, scripted, tmp_path, capsys):
        over = threading.Event()

        def slow(handler):
            handler.send_response(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
            while not over.wait(0.1):
                if FILMS[1] in handler.path:
                    with contextlib.suppress(OSError):
                        handler.wfile.write(b".")
            handler.close_connection = True
            return True

        self.failing(scripted, times=-1)(slow)
        counts = one_round(tmp_path, scripted.url, patience=Patience(connect=5, silence=1.5, whole=2.5, pauses=()))
        over.set()
        printed = capsys.readouterr().out
        assert counts[rounds.FAILED] == 2 and not scripted.results()
        assert "the archive sent nothing for 1.5 s" in printed and "took longer than 2.5 s to answer" in printed

    def test_one_that_is_busy_is_asked_again(self, scripted, tmp_path):
        self.failing(scripted, 3, lambda handler: True)(lambda handler: answer(handler, 503, b""))
        assert one_round(tmp_path, scripted.url)[rounds.READ] == 2

    def test_one_that_stores_and_does_not_say_so_gets_nothing_twice(self, scripted, tmp_path):
        def store_and_leave(handler):
            scripted.take(handler)
            handler.close_connection = True
            return True

        self.failing(scripted, 1, lambda handler: handler.command == "POST")(store_and_leave)
        assert one_round(tmp_path, scripted.url)[rounds.READ] == 2
        assert set(scripted.results().values()) == {1} and len(scripted.results()) == 4

    def test_a_kill_between_storing_and_noting_it_sends_nothing_twice(self, scripted, tmp_path, monkeypatch):
        class Killed(BaseException):
            pass

        def die(self, key, value):
            raise Killed

        with monkeypatch.context() as killed:
            killed.setattr(rounds.Journal, "write", die)
            with pytest.raises(Killed):
                one_round(tmp_path, scripted.url)
        assert len(scripted.results()) == 2
        counts = one_round(tmp_path, scripted.url)
        assert (counts[rounds.STORED], counts[rounds.READ]) == (1, 1)
        assert set(scripted.results().values()) == {1} and len(scripted.results()) == 4

    def test_one_that_refuses_results_is_quoted_and_they_are_not_lost(self, scripted, tmp_path, capsys):
        def refuse(handler):
            failed = {"00081155": {"Value": ["1.2"]}, "00081197": {"Value": [0xA700]}}
            return answer(handler, 409, archives.json.dumps({"00081198": {"Value": [failed]}}).encode())

        self.failing(scripted, 1, lambda handler: handler.command == "POST")(refuse)
        counts = one_round(tmp_path, scripted.url)
        assert (counts[rounds.FAILED], counts[rounds.READ]) == (1, 1)
        assert "did not store 2 of 2 results: reason 42752" in capsys.readouterr().out
        assert one_round(tmp_path, scripted.url)[rounds.READ] == 1

    def test_one_that_says_yes_and_stores_nothing_is_found_out(self, scripted, tmp_path, capsys):
        self.failing(scripted, 1, lambda handler: handler.command == "POST")(
            lambda handler: answer(handler, 200, b"{}", "application/dicom+json")
        )
        assert one_round(tmp_path, scripted.url)[rounds.FAILED] == 1
        assert "did not store 2 of 2 results: without a reason" in capsys.readouterr().out

    def test_two_films_of_one_identifier_are_one(self, scripted, tmp_path, capsys):
        scripted.listed.append(("1.9", "1.9.1", FILMS[0]))
        counts = one_round(tmp_path, scripted.url)
        assert counts[rounds.READ] == 2 and counts[rounds.SAME] == 1
        assert "is in study 1.9 and in study" in capsys.readouterr().out

    def test_another_film_than_the_one_asked_for_is_not_taken(self, scripted, tmp_path, capsys):
        swapped = scripted.files | {FILMS[0]: scripted.files[FILMS[1]]}
        self.failing(scripted, 1)(lambda handler: answer_with_file(handler, swapped[FILMS[0]]))
        assert one_round(tmp_path, scripted.url)[rounds.FAILED] == 1
        assert "sent another film than the one asked for" in capsys.readouterr().out

    def test_a_film_that_cannot_be_decoded_is_left_out_for_good(self, scripted, tmp_path):
        damaged = scripted.files[FILMS[0]]
        scripted.files[FILMS[0]] = damaged[:-50_000]
        counts = one_round(tmp_path, scripted.url)
        assert counts[rounds.READ] == 1 and [what for what in counts if "truncated: " in what]
        assert one_round(tmp_path, scripted.url)[rounds.DONE] == 2

    def test_after_three_failures_in_a_row_the_archive_counts_as_away(self, scripted, films, tmp_path):
        for number in range(3):
            scripted.keep(film(tmp_path / "more.dcm", 0, SOPInstanceUID=f"1.2.3.{number}").read_bytes())
        self.failing(scripted, -1)(lambda handler: answer(handler, 410, b"gone"))
        with pytest.raises(NotNow, match="failed 3 films in a row; the last one: it answered 410: gone"):
            one_round(tmp_path, scripted.url)

    @pytest.mark.parametrize(
        ("status", "body", "message"),
        [
            (200, b"<html>Sign in", "answered a search with something else than JSON"),
            (200, b'{"error": 1}', "answered a search with something else than a list of results"),
            (302, b"", "answered with a redirect .302., which is not followed"),
            (404, b"no such page", "answered 404: no such page"),
        ],
    )
    def test_what_is_no_archive_is_told(self, scripted, tmp_path, status, body, message):
        scripted.behave = lambda handler: answer(handler, status, body, Location=ADDRESS)
        with pytest.raises(Declined, match=message):
            one_round(tmp_path, scripted.url)

    def test_results_may_go_elsewhere(self, scripted, tmp_path):
        target = Scripted()
        with target.serve() as url:
            assert one_round(tmp_path, scripted.url, url)[rounds.READ] == 2
            assert len(target.results()) == 4 and not scripted.results()
            (tmp_path / rounds.JOURNAL).unlink()
            assert one_round(tmp_path, scripted.url, url)[rounds.STORED] == 2

    def test_an_archive_of_many_pages_is_read_to_its_end(self, scripted, monkeypatch):
        monkeypatch.setattr(archive, "_PAGE", 1)
        scripted.listed.extend((f"1.8.{number}", "1.8", "1.8") for number in range(5))
        found = Archive("from", scripted.url, QUICK).studies({"ModalitiesInStudy": "DX"})
        assert len(list(found)) == 6

    def test_a_certificate_that_nobody_vouches_for_is_refused(self, films, tmp_path):
        names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", tmp_path / "key", "-out", tmp_path / "certificate")
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subprocess.run([*made, *names, *files], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

        with Scripted(*films).serve(context) as url:
            with pytest.raises(
                UserError, match="its certificate is not accepted .SSLCertVerificationError.*REQUESTS_CA"
            ):
                one_round(tmp_path, url)
            with pytest.MonkeyPatch.context() as vouched:
                vouched.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate"))
                assert one_round(tmp_path, url)[rounds.READ] == 2


class TestCredentials:
    def sent(self, monkeypatch, url=ADDRESS, flag="from"):
        request = Archive(flag, url, QUICK)._session.prepare_request(archive.requests.Request("GET", url))
        return request.headers.get("Authorization")

    def test_they_come_from_the_environment_or_a_netrc_file_and_go_to_the_one_archive(self, monkeypatch, tmp_path):
        assert self.sent(monkeypatch) is None
        (tmp_path / "netrc").write_text("machine pacs.example login me password word\n")
        assert self.sent(monkeypatch) == "Basic bWU6d29yZA=="
        monkeypatch.setenv("SDFN_FROM_TOKEN", "abc")
        assert self.sent(monkeypatch) == "Bearer abc"
        assert self.sent(monkeypatch, "https://other.example", "to") is None

    @pytest.mark.parametrize("dates", ["2026-01-01", "20260101-20260131-", "last week"])
    def test_days_are_those_of_dicom(self, dates):
        with pytest.raises(UserError, match=f"--dates={dates}: expected days, 20260101-20260131"):
            Query(dates=dates)

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("https://me:word@pacs.example", "--from: credentials do not belong in an address; set the environment"),
            ("http://pacs.example", "--from=http://pacs.example: credentials would travel unencrypted; use https://"),
            ("pacs.example/dicom-web", "expected the address of a DICOMweb service, https://HOST/PATH"),
        ],
    )
    def test_where_they_do_not_belong_they_are_refused(self, monkeypatch, url, message):
        monkeypatch.setenv("SDFN_FROM_TOKEN", "abc")
        with pytest.raises(UserError) as refusal:
            Archive("from", url, QUICK)
        assert message in str(refusal.value) and "word@" not in str(refusal.value)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("sdfn_jax.hospital")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert command(f"--from={ADDRESS}", f"--folder={tmp_path}") == 2
    assert "DICOM results need the package highdicom: pip install" in capsys.readouterr().err


def test_a_body_holds_any_bytes():
    files = [b"\r\n--x--\r\n" * 3, bytes(range(256))]
    for each in files:
        kind, body = multipart.pack([each])
        assert multipart.unpack_one(kind, body) == each
    with pytest.raises(ValueError, match="it answered with 2 files; expected one"):
        multipart.unpack_one(*multipart.pack(files))
    with pytest.raises(ValueError, match="it answered with text/html; expected multipart/related"):
        multipart.unpack_one("text/html", b"")
