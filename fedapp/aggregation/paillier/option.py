"""secure_aggregation=paillier: masked updates, encrypted for a helper by Paillier, for models of some ten thousand
values."""

from dataclasses import dataclass
from importlib.util import find_spec

from fedapp.aggregation.encrypted.encrypted_sum import EncryptedSum
from fedapp.aggregation.paillier.paillier_scheme import Paillier
from fedapp.aggregation.whole_numbers.fixed_point import GROUP, FixedPoint
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.learning.build import Parts

__all__ = ["PaillierSum"]

MOST_VALUES = 100_000  # at some 0.3 s a thousand


@dataclass(frozen=True)
class PaillierSum(EncryptedSum):
    """The keys of `conf/secure_aggregation/paillier.yaml`, which says what each means."""

    setting = f"{GROUP}=paillier"

    def scheme(self, numbers: FixedPoint) -> Paillier:
        if find_spec("phe") is None:
            raise ConfigError(
                f"{self.setting}: needs the package phe (GPL-3); pip install 'fedapp[paillier]', or take"
                " secure_aggregation=bfv"
            )
        return Paillier()

    def conflicts(self, config: Config, parts: Parts) -> None:
        super().conflicts(config, parts)
        values = sum(parameter.numel() for parameter in parts.model.parameters())
        if values > MOST_VALUES:
            raise ConfigError(
                f"{self.setting}: a model of {values} values would take minutes a client, it is for {MOST_VALUES} at"
                " most (a head: model.trainable, a regression); take secure_aggregation=bfv or helper"
            )
