import pytest


@pytest.fixture
def source(tmp_path):
    """A folder with a small checkpoint of two files."""
    pytest.importorskip("torch")
    from tests.formats.checkpoints import small_checkpoint

    return small_checkpoint(tmp_path / "source")
