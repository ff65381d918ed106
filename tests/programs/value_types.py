"""Types whose form changes on its way through JSON, for the table of values that arrive equal."""

from __future__ import annotations

import collections
import datetime
import enum
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    Tag,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

Item = TypeVar("Item")


class Alias(BaseModel):
    city: str = Field(alias="cityName")


class ValidationAlias(BaseModel):
    city: str = Field(validation_alias="cityName")


class SerializationAlias(BaseModel):
    city: str = Field(serialization_alias="cityName")


class TwoAliases(BaseModel):
    city: str = Field(validation_alias="in", serialization_alias="out")


class Path(BaseModel):
    city: str = Field(validation_alias=AliasPath("place", 0))


class Choices(BaseModel):
    city: str = Field(validation_alias=AliasChoices("town", AliasPath("place", "name")))


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    home_city: str
    zip_code: int = 0


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    city: str = Field(alias="cityName")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class ComputedExtra(BaseModel):
    model_config = ConfigDict(extra="allow")
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class Excluded(BaseModel):
    shown: str
    hidden: str = Field(exclude=True)


class ExcludedDefault(BaseModel):
    shown: str
    hidden: int = Field(default=0, exclude=True)


class FieldSerialized(BaseModel):
    price: float

    @field_serializer("price")
    def _write(self, price: float) -> str:
        return f"${price:.2f}"


class Lossy(BaseModel):
    price: float

    @field_serializer("price")
    def _write(self, price: float) -> float:
        return round(price)


class ModelSerialized(BaseModel):
    first: str
    last: str

    @model_serializer
    def _write(self) -> str:
        return f"{self.first} {self.last}"


class Growing(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def _grow(cls, text: str) -> str:
        return text + "!"


class GrowingModel(BaseModel):
    count: int

    @model_validator(mode="after")
    def _grow(self) -> GrowingModel:
        object.__setattr__(self, "__dict__", {"count": self.count + 1})
        return self


class FromText(BaseModel):
    parts: list[str]

    @model_validator(mode="before")
    @classmethod
    def _split(cls, data: Any) -> Any:
        return {"parts": data.split(",")}


class Names(RootModel[list[str]]):
    pass


class Places(RootModel[dict[str, Alias]]):
    pass


class Private(BaseModel):
    shown: int
    _hidden: int = PrivateAttr(default=0)

    @classmethod
    def made(cls) -> Private:
        private = cls(shown=1)
        private._hidden = 5
        return private


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    day: datetime.date
    data: bytes = b"a"
    pair: tuple[int, int] = (1, 2)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Revalidated(BaseModel):
    model_config = ConfigDict(revalidate_instances="always")
    inner: Growing


class Box(BaseModel, Generic[Item]):
    item: Item = Field(alias="theItem")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = Field(alias="dogName")


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Tagged = Annotated[
    Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")],
    Discriminator(lambda pet: pet["kind"] if isinstance(pet, dict) else pet.kind),
]


class Owner(BaseModel):
    pets: list[Pet]
    by_name: dict[str, Alias] = {}


class Node(BaseModel):
    name: str = Field(alias="n")
    children: list[Node] = []


class Base(BaseModel):
    a: int


class Left(BaseModel):
    a: int


class Right(BaseModel):
    a: int


@dataclass
class Plain:
    x: int
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.x * 2


@dataclass(frozen=True, slots=True)
class Slotted:
    x: int
    inner: Alias


@dataclass
class NotCompared:
    x: int
    note: str = field(default="", compare=False)


@pydantic_dataclass
class Checked:
    city: str = Field(alias="cityName")


class Pair(NamedTuple):
    left: int
    right: datetime.date | None = None


class Shape(TypedDict):
    name: str
    day: NotRequired[datetime.date]


class Word(enum.StrEnum):
    YES = "yes"


class Corner(enum.Enum):
    ORIGIN = (0, 0)
    FAR = (1, 1)


class Flags(enum.Flag):
    A = 1
    B = 2


class Outer:
    class Inner(BaseModel):
        a: int


Grown = Annotated[str, AfterValidator(lambda text: text + "!")]
Kilograms = Annotated[int, BeforeValidator(lambda text: int(text.removesuffix("kg")))]
Shouted = Annotated[str, PlainSerializer(str.upper)]


class Odd(BaseModel):
    """Needs its exact form, with parts that pydantic alone writes."""

    text: Grown
    path: pathlib.Path
    queue: collections.deque[int]
    counts: collections.Counter[str]
    many: dict[tuple[int, int], frozenset[str]]
    number: complex


class Secret(BaseModel):
    key: SecretStr


class Opaque:
    pass


class HoldsOpaque(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    opaque: Opaque


class HoldsFunction(BaseModel):
    call: Callable[[int], int]


class LabelledInside(BaseModel):
    names: frozenset[str]


class Labelled(BaseModel):
    tags: set[str] = Field(alias="theTags", default=set())
    inner: LabelledInside
    model_config = ConfigDict(populate_by_name=True)


class LabelledExactly(BaseModel):
    """Its JSON does not validate, so that its exact form goes along."""

    tags: set[str]

    @field_validator("tags")
    @classmethod
    def _takes_no_list_of_many(cls, tags: set[str]) -> set[str]:
        return {tag.upper() * 2 for tag in tags}


class Parent(BaseModel):
    a: int


class Child(Parent):
    b: str = "x"
    _hidden: int = PrivateAttr(default=1)


class Holder(BaseModel):
    held: Parent


@dataclass
class Point:
    x: int


@dataclass
class NamedPoint(Point):
    name: str = ""


class Doubling(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _twice(cls, a: int) -> int:
        return 2 * a


class MoreDoubling(Doubling):
    b: int = 0


class RaisesWhenWritten(BaseModel):
    a: int

    @field_serializer("a")
    def _raise(self, a: int) -> int:
        raise ZeroDivisionError(a)


class RaisesWhenRead(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _divide(cls, a: int) -> int:
        return 1 // a


class OpaqueDefault(BaseModel):
    value: Any = Field(default_factory=object)


class Tidy(BaseModel):
    at: datetime.date = datetime.date.min
    tags: set[str] = {"a", "b"}
