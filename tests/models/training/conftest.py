"""What several tests of training look at."""

import pytest

from labutils import data
from labutils.models.training import prepare, train
from tests.models.training.examples import images_and_labels


@pytest.fixture(scope="session")
def two_bits():
    """The digits network after one epoch at 2 bits on all training digits, and its accuracy before and after."""
    images, labels = images_and_labels(None)
    model = prepare(data.digits_model(), images, num_bits=2)
    return model, train(model, images, labels, epochs=1, measure=data.digits_accuracy)
