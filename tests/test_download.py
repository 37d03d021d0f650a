"""Cut-outs from a server that may be slow, busy, broken or hostile; here it runs on this machine."""

import csv
import gzip
import io
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from rgz.data import download, fetch
from rgz.errors import BadInput


@pytest.fixture(autouse=True)
def _haste(monkeypatch):
    """No pauses, and seconds that a busy machine may take for a good answer."""
    for name, value in {"PAUSE": 0.0, "RETRIES": 1, "TIMEOUT": 30.0, "TOTAL": 60.0}.items():
        monkeypatch.setattr(download, name, value)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """This machine and no other, and no proxy on the way to it."""
    look_up = socket.getaddrinfo

    def refuse_others(host, *arguments, **options):
        if host != "127.0.0.1":
            raise socket.gaierror(-2, f"tests have no network, {host} was asked for")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", refuse_others)
    monkeypatch.setenv("no_proxy", "*")


def image(ra=180.0, dec=30.0, width=116, pixel=1.8, blank=False):
    """A FITS file of noise around a bright pixel at a position, in the form of FIRST's."""
    data = np.random.default_rng(0).normal(scale=1e-4, size=(1, 1, width, width)).astype(np.float32)
    data[..., width // 2, width // 2] = 1.0
    unit = fits.PrimaryHDU(data if not blank else np.full_like(data, np.nan))
    axes = (
        ("RA---SIN", ra, width // 2 + 1, -pixel / 3600),
        ("DEC--SIN", dec, width // 2 + 1, pixel / 3600),
        ("FREQ", 1.4e9, 1, 1e8),
        ("STOKES", 1, 1, 1),
    )
    for axis, values in enumerate(axes, start=1):
        unit.header.update(
            dict(zip((f"{key}{axis}" for key in ("CTYPE", "CRVAL", "CRPIX", "CDELT")), values, strict=True))
        )
    stream = io.BytesIO()
    unit.writeto(stream)
    return stream.getvalue()


def good(handler, ra, dec):
    handler.answer(image(ra, dec))


class Service:
    """A cut-out server; ``behave[ra]`` lists the answers for a whole-degree RA, the last one for all later requests."""

    def __init__(self):
        self.behave, self.asked, self.forms, self.headers = {}, Counter(), [], None
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, body, status=200, promised=None, **headers):
                self.send_response(status)
                self.send_header("Content-Length", len(body) if promised is None else promised)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                service.forms.append({name: value for name, (value,) in form.items()})
                service.headers = self.headers
                sky = SkyCoord(form["RA"][0], unit=("hourangle", "deg"))
                source = round(sky.ra.deg)
                behaviours = service.behave.get(source, [good])
                behave = behaviours[min(service.asked[source], len(behaviours) - 1)]
                service.asked[source] += 1
                with suppress(OSError):  # the client had enough
                    behave(self, sky.ra.deg, sky.dec.deg)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/cgi-bin/firstcutout"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service():
    running = Service()
    yield running
    running.stop()


def sources(number):
    """Sources at RA 1°, 2°, … called s1, s2, …"""
    ra = np.arange(1.0, number + 1)
    return Table({"name": [f"s{n:.0f}" for n in ra], "ra": ra, "dec": np.linspace(-5, 60, number)})


def listed(folder):
    with open(folder / download.FAILURES, newline="") as stream:
        return {row["name"]: row["reason"] for row in csv.DictReader(stream)}


def kept(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != download.FAILURES)


def catalogue(path, rows, header="rgz_name,ra,dec,las_arcsec"):
    path.write_bytes(gzip.compress("\n".join([header, *rows]).encode()))
    return path


def test_the_catalogue_has_unique_names_and_units(tmp_path):
    rows = ["a,1.5,-2.5,26.0", "b,2,3,40", "a,359.9,4,30"]
    table = download.read_catalogue(catalogue(tmp_path / "dr1.csv.gz", rows))
    assert list(table["name"]) == ["a", "b", "a-2"]
    assert table["ra"][2] == 359.9
    assert [table[column].unit for column in ("ra", "dec", "las")] == ["deg", "deg", "arcsec"]


@pytest.mark.parametrize(
    "rows",
    [[], ["a,1,2"], ["a,x,2,3"], ["a,nan,2,3"], ["a,1,91,3"], ["a,-1,2,3"], ["a,1,2,inf"], [",1,2,3"]],
)
def test_a_catalogue_with_a_bad_row_is_refused(tmp_path, rows):
    with pytest.raises(BadInput, match="not a catalogue"):
        download.read_catalogue(catalogue(tmp_path / "dr1.csv.gz", rows))


def test_a_foreign_or_damaged_catalogue_is_refused(tmp_path):
    path = catalogue(tmp_path / "dr1.csv.gz", ["1,2"], header="ra,dec")
    with pytest.raises(BadInput, match="rgz_name"):
        download.read_catalogue(path)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(BadInput, match="fetch it again"):
        download.read_catalogue(path)
    path.write_bytes(b"\x00\xff<html>")
    with pytest.raises(BadInput, match="fetch it again"):
        download.read_catalogue(path)


def test_what_comes_is_kept_and_collected(service, tmp_path):
    table = sources(3)
    assert download.download(table, tmp_path, service.address) == {}
    assert kept(tmp_path) == ["s1.fits", "s2.fits", "s3.fits"]
    assert listed(tmp_path) == {}
    assert service.forms[0] == {
        "RA": "00 04 00.000 -05 00 00.000",
        "Equinox": "J2000",
        "ImageSize": "4.6",
        "ImageType": "FITS File",
    }
    assert service.headers["User-Agent"].startswith("rgz/")
    (tmp_path / "s2.fits").unlink()
    sample = download.collect(tmp_path, table)
    assert list(sample.table["name"]) == ["s1", "s3"]
    assert sample.images.shape == (2, 150, 150)
    assert sample.images.dtype == np.float32
    assert sample.pixel == pytest.approx(1.8)
    for field in sample.images:
        assert np.unravel_index(field.argmax(), field.shape) == (75, 75)


def test_a_field_beyond_the_edge_of_a_cut_out_is_zero(tmp_path):
    (tmp_path / "s1.fits").write_bytes(image(1.0, -5.0, width=40))
    field = download.collect(tmp_path, sources(1), size=60).images[0]
    assert field.max() == field[30, 30] == 1
    assert not field[:9].any()


def test_images_of_different_pixels_do_not_mix(tmp_path):
    for n, pixel in ((1, 1.8), (2, 5.0)):
        (tmp_path / f"s{n}.fits").write_bytes(image(n, (-5, 60)[n - 1], pixel=pixel))
    with pytest.raises(BadInput, match=r"s2.fits has pixels of 5.000″"):
        download.collect(tmp_path, sources(2))


def test_nothing_to_collect(tmp_path):
    with pytest.raises(BadInput, match="download them first"):
        download.collect(tmp_path, sources(2))


def test_a_last_block_that_is_not_padded_is_no_fault(service, tmp_path):
    service.behave = {1: [lambda h, ra, dec: h.answer(image(ra, dec)[:-500])]}
    assert download.download(sources(1), tmp_path, service.address) == {}
    assert download.collect(tmp_path, sources(1)).images.max() == 1


def stall(handler, ra, dec):
    time.sleep(3)


def drip(handler, ra, dec):
    handler.send_response(200)
    handler.end_headers()
    for byte in range(40):
        handler.wfile.write(image(ra, dec)[byte : byte + 1])
        time.sleep(0.1)


def flood(handler, ra, dec):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(2000):
        handler.wfile.write(b"SIMPLE  " * 8192)


def zipped(handler, ra, dec):
    handler.answer(gzip.compress(image(ra, dec)))


@pytest.mark.parametrize(
    ("behave", "reason", "asked"),
    [
        (lambda h, ra, dec: h.answer(b"no coverage", 404), "404", 1),
        (lambda h, ra, dec: h.answer(b"go away", 403), "403", 1),
        (lambda h, ra, dec: h.answer(b"busy", 503), "the service answers 503", 2),
        (lambda h, ra, dec: h.answer(b"", 302, Location="file:///etc/passwd"), "302", 1),
        (lambda h, ra, dec: h.answer(b"<html>sorry</html>"), "begins b'<html>sorry", 1),
        (lambda h, ra, dec: h.answer(b""), "not a plain FITS file", 1),
        (lambda h, ra, dec: h.answer(b"SIMPLE  = garbage" * 400), "not a readable FITS image", 1),
        (lambda h, ra, dec: h.answer(image(ra, dec)[:9000]), "not a readable FITS image", 1),
        (
            lambda h, ra, dec: h.answer(image(ra, dec)[:9000], promised=57600),
            "IncompleteRead(9000 bytes read, 48600 more expected)",
            1,
        ),
        (lambda h, ra, dec: h.answer(image(ra, dec, blank=True)), "blank", 1),
        (lambda h, ra, dec: h.answer(image(ra, dec, width=20)), "0.6′×0.6′ of sky", 1),
        (lambda h, ra, dec: h.answer(image(ra, dec + 1)), "does not show", 1),
        (zipped, "not a plain FITS file", 1),
        (stall, "Read timed out", 2),
        (drip, "incomplete after 3 s", 1),
        (flood, "longer than", 1),
    ],
)
@pytest.mark.slow
def test_a_failure_is_listed_and_leaves_no_file(service, tmp_path, monkeypatch, behave, reason, asked):
    monkeypatch.setattr(download, "LARGEST", 1 << 20)
    service.behave = {1: [behave]}
    if behave in (stall, drip):
        monkeypatch.setattr(download, "TIMEOUT", 2.0)
        monkeypatch.setattr(download, "TOTAL", 3.0)
    failures = download.download(sources(2), tmp_path, service.address)
    assert list(failures) == ["s1"]
    assert reason in failures["s1"]
    assert listed(tmp_path) == failures
    assert kept(tmp_path) == ["s2.fits"]
    assert service.asked == {1: asked, 2: 1}


@pytest.fixture
def slept(monkeypatch):
    """The waits of a run, which take no time; those of other threads do not count."""
    waits, sleep, run = [], time.sleep, threading.current_thread()
    monkeypatch.setattr(time, "sleep", lambda s: waits.append(s) if threading.current_thread() is run else sleep(s))
    return waits


@pytest.mark.parametrize(("asks", "waits"), [("7", [7]), ("99999999", [300]), (None, [])])
def test_a_busy_service_is_left_alone_for_as_long_as_it_asks(service, tmp_path, monkeypatch, slept, asks, waits):
    monkeypatch.setattr(download, "PAUSE", 2.0)
    headers = {"Retry_After": asks} if asks else {}
    service.behave = {1: [lambda h, ra, dec: h.answer(b"", 503, **headers), good]}
    assert download.download(sources(1), tmp_path, service.address) == {}
    assert slept == [*waits, 2]
    assert kept(tmp_path) == ["s1.fits"]


def test_waits_double(service, tmp_path, monkeypatch, slept):
    monkeypatch.setattr(download, "PAUSE", 1.0)
    monkeypatch.setattr(download, "RETRIES", 3)
    service.behave = {1: [lambda h, ra, dec: h.answer(b"", 429)]}
    download.download(sources(1), tmp_path, service.address)
    assert slept == [4, 8, 1]


def test_a_second_run_asks_only_for_what_is_missing(service, tmp_path):
    service.behave = {2: [lambda h, ra, dec: h.answer(b"", 404), good]}
    assert list(download.download(sources(4), tmp_path, service.address)) == ["s2"]
    service.asked.clear()
    service.behave = {}
    assert download.download(sources(5), tmp_path, service.address) == {}
    assert list(service.asked) == [5, 2]  # the one that failed comes last
    assert listed(tmp_path) == {}
    service.asked.clear()
    assert download.download(sources(5), tmp_path, service.address) == {}
    assert not service.asked


def test_an_interrupted_run_keeps_what_is_finished_and_lists_failures(service, tmp_path, monkeypatch):
    def interrupt(_):
        if len(service.asked) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    service.behave = {2: [lambda h, ra, dec: h.answer(b"", 404)]}
    with pytest.raises(KeyboardInterrupt):
        download.download(sources(5), tmp_path, service.address)
    assert kept(tmp_path) == ["s1.fits", "s3.fits"]
    assert list(listed(tmp_path)) == ["s2"]


def test_no_name_leaves_the_folder(service, tmp_path):
    table = sources(5)
    table["name"] = ["../escaped", "/etc/passwd", "..", "a\x00b\n", "x" * 300]
    folder = tmp_path / "inside"
    assert download.download(table, folder, service.address) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert len(kept(folder)) == 5
    assert list(download.collect(folder, table).table["name"]) == list(table["name"])


def test_a_service_that_is_down_is_not_hammered(service, tmp_path):
    service.stop()
    with pytest.raises(BadInput, match=r"10 sources in a row .* refused.*run again later"):
        download.download(sources(30), tmp_path, service.address)
    assert len(listed(tmp_path)) == 10
    with pytest.raises(BadInput, match="10 sources in a row"):
        download.download(sources(30), tmp_path, service.address)
    assert len(listed(tmp_path)) == 20


def test_a_page_in_place_of_every_image_ends_the_run_once(service, tmp_path):
    service.behave = {n: [lambda h, ra, dec: h.answer(b"<html>")] for n in range(1, 13)}
    with pytest.raises(BadInput, match="10 sources in a row"):
        download.download(sources(14), tmp_path, service.address)
    failures = download.download(sources(14), tmp_path, service.address)
    assert len(failures) == 12  # gaps that are known do not count again
    assert kept(tmp_path) == ["s13.fits", "s14.fits"]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "third.ucllnl.org", ""])
def test_an_address_is_one_of_the_web(tmp_path, address):
    with pytest.raises(BadInput, match="http"):
        download.download(sources(1), tmp_path, address)


def test_a_list_of_failures_that_is_none(service, tmp_path):
    (tmp_path / download.FAILURES).write_text("something,else\n1,2\n")
    with pytest.raises(BadInput, match="remove it"):
        download.download(sources(1), tmp_path, service.address)


def test_a_folder_that_cannot_be_written_to(service, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write"):
        download.download(sources(1), tmp_path / "file", service.address)


@pytest.fixture
def dr1(tmp_path, monkeypatch):
    """A catalogue of two sources in place of the public one."""
    path = catalogue(tmp_path / "dr1.csv.gz", ["s1,1,2,30", "s2,2,2,30"])
    monkeypatch.setattr(fetch, "fetch", lambda name: path)


@pytest.mark.usefixtures("dr1")
def test_the_command_line_says_what_came(service, tmp_path, monkeypatch, run):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    service.behave = {2: [lambda h, ra, dec: h.answer(b"", 404), good]}
    command = ("data", "cutouts", "--folder", tmp_path / "first", "--service", service.address)
    status, out, _ = run(*command)
    assert status == 0
    assert "1 of 2 sources; 1 could not be" in out
    assert "failures.csv" in out
    assert run(*command)[1].endswith("first: 2 of 2 sources\n")
    assert set(run(*command, "--limit", 1)[1].split()) >= {"1", "of"}


@pytest.mark.usefixtures("dr1")
def test_the_command_line_without_any_image_is_exit_status_1(service, tmp_path, monkeypatch, run):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    service.behave = {n: [lambda h, ra, dec: h.answer(b"", 404)] for n in (1, 2)}
    status, out, err = run("data", "cutouts", "--folder", tmp_path / "first", "--service", service.address)
    assert status == 1
    assert not out
    assert "none of 2 sources" in err.splitlines()[-1]
