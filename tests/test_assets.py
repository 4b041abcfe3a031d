"Laws of core.assets: nothing without asking, nothing unchecked, nothing left behind."
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from talkinglab.core import assets
from talkinglab.core.assets import Asset, AssetError, asset_folder, fetch, known, register, samples

CONTENT = b"numbers that somebody published\n"*1000


@pytest.fixture
def shop(tmp_path, monkeypatch):
    "A web server on this machine that counts its visitors, and an empty asset folder."
    class Shop(BaseHTTPRequestHandler):
        def do_GET(self):
            server.visits.append(self.path)
            self.send_response(200 if self.path in server.shelf else 404)
            self.end_headers()
            self.wfile.write(server.shelf.get(self.path, b""))
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.visits, server.shelf, server.url = [], {"/a.bin": CONTENT}, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("TALKINGLAB_ASSETS", str(tmp_path/"assets"))
    monkeypatch.setattr(assets, "_registry", {})
    yield server
    server.shutdown()
    server.server_close()

def asset(shop, **kw):
    return Asset(**dict(dict(name="a.bin", url=shop.url+"/a.bin", licence="CC0", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(), adds="vowels"), **kw))


def test_nothing_is_fetched_without_being_asked_for(shop, tmp_path):
    register(asset(shop))
    with pytest.raises(AssetError, match=r"vowels.*CC0.*0.0 MB.*download=True"): fetch("a.bin")
    assert not shop.visits and not asset_folder().exists()

def test_a_fetched_file_is_whole_and_fetched_once(shop):
    register(asset(shop))
    assert fetch("a.bin", download=True).read_bytes()==CONTENT
    assert fetch("a.bin")==fetch("a.bin", download=True)==asset_folder()/"a.bin" and shop.visits==["/a.bin"]

def test_other_bytes_are_refused_and_leave_nothing(shop):
    register(asset(shop))
    shop.shelf["/a.bin"] = CONTENT[:-1]+b"?"
    with pytest.raises(AssetError, match="other bytes"): fetch("a.bin", download=True)
    assert not [*asset_folder().iterdir()]

def test_a_dead_address_is_an_asset_error_that_names_it(shop):
    register(asset(shop))
    shop.shelf.clear()
    with pytest.raises(AssetError, match="404"): fetch("a.bin", download=True)
    register(asset(shop, name="b.bin", url="http://127.0.0.1:9/b.bin"))
    with pytest.raises(AssetError, match="127.0.0.1:9"): fetch("b.bin", download=True)
    assert not [*asset_folder().iterdir()]

def test_a_rotten_file_is_noticed_and_mended_when_asked(shop):
    register(asset(shop))
    path = fetch("a.bin", download=True)
    for rotten in (CONTENT[:-1], CONTENT[:-1]+b"?"):
        path.write_bytes(rotten)
        with pytest.raises(AssetError, match="differs"): fetch("a.bin")
        assert path.read_bytes()==rotten
        assert fetch("a.bin", download=True).read_bytes()==CONTENT

def test_a_file_put_there_by_hand_is_taken(shop):
    register(asset(shop))
    asset_folder().mkdir(parents=True)
    (asset_folder()/"a.bin").write_bytes(CONTENT)
    assert fetch("a.bin").read_bytes()==CONTENT and not shop.visits

def test_a_name_belongs_to_one_file(shop):
    assert register(asset(shop)) is register(known()[0])
    with pytest.raises(ValueError, match="another checksum"): register(asset(shop, sha256="0"*64))
    register(asset(shop, name="0.bin"))
    assert [a.name for a in known()]==["0.bin", "a.bin"]
    with pytest.raises(KeyError, match=r"0\.bin, a\.bin"): fetch("c.bin")

@pytest.mark.parametrize("wrong", (dict(name="../a"), dict(name="a/b"), dict(name=""), dict(name=".."), dict(licence=""), dict(adds=""), dict(size=0), dict(sha256="abc"), dict(sha256="G"*64)))
def test_an_asset_must_say_what_it_is(shop, wrong):
    with pytest.raises(ValueError): asset(shop, **wrong)

def test_what_the_library_offers_names_its_owner_and_its_bytes():
    assert {"generic_neutral_mesh.obj", "jawOpen.obj", "vertex_indices.json"} <= {a.name for a in known()}
    for a in known(): assert a.url.startswith("https://") and len(a.licence)>2

def test_the_offered_head_says_that_it_has_a_jaw_only():
    for a in known():
        if "ICT-FaceKit" in a.url: assert "jaw only" in a.adds, a.name

def test_the_offered_files_are_those_of_the_public_head(shared):
    folder = shared/"ict_facekit"/"raw"
    for a in known():
        if (folder/a.name).exists():
            data = (folder/a.name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest())==(a.size, a.sha256)

def test_samples_are_found_and_a_wrong_name_lists_the_right_ones():
    assert samples().is_dir()
    with pytest.raises(FileNotFoundError, match="no sample 'nothing.wav'"): samples("nothing.wav")
    with pytest.raises(FileNotFoundError, match="data_samples"): samples("no/nothing.wav")
