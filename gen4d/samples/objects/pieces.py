"""What stands in a room: a piece is a mesh with a category, and the categories have ids of the nyu40 label set."""

from typing import NamedTuple

from gen4d.samples.objects.solids import Solid, join, place

NYU40 = (
    "unlabelled wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves "
    "curtain dresser pillow mirror floor_mat clothes ceiling books refridgerator television paper towel shower_curtain "
    "box whiteboard person night_stand toilet sink lamp bathtub bag otherstructure otherfurniture otherprop"
).split()

# Categories as an annotator would name them, by the nyu40 class that they belong to.
_CATEGORIES = {
    "wall": ["wall"],
    "floor": ["floor"],
    "cabinet": ["cabinet", "kitchen cabinet", "file cabinet", "wardrobe", "vanity"],
    "bed": ["bed", "bunk bed"],
    "chair": ["chair", "office chair", "armchair", "stool"],
    "sofa": ["couch"],
    "table": ["table", "coffee table", "dining table", "end table", "conference table"],
    "door": ["door"],
    "window": ["window"],
    "bookshelf": ["bookshelf"],
    "picture": ["picture"],
    "counter": ["counter", "kitchen counter"],
    "blinds": ["blinds"],
    "desk": ["desk"],
    "shelves": ["shelf"],
    "curtain": ["curtain"],
    "dresser": ["dresser"],
    "pillow": ["pillow"],
    "mirror": ["mirror"],
    "floor_mat": ["rug", "bath mat"],
    "clothes": ["clothes"],
    "ceiling": ["ceiling"],
    "books": ["books"],
    "refridgerator": ["refrigerator"],
    "television": ["tv"],
    "paper": ["paper"],
    "towel": ["towel"],
    "shower_curtain": ["shower curtain"],
    "box": ["box"],
    "whiteboard": ["whiteboard"],
    "night_stand": ["nightstand"],
    "toilet": ["toilet"],
    "sink": ["sink"],
    "lamp": ["lamp"],
    "bathtub": ["bathtub"],
    "bag": ["backpack", "bag"],
    "otherstructure": ["column"],
    "otherfurniture": ["radiator", "trash can", "stove", "tv stand", "ottoman", "bench"],
    "otherprop": ["monitor", "keyboard", "laptop", "microwave", "plant", "bottle", "cup", "printer", "shoes", "object"],
}
CATEGORY_CLASS = {name: label for label, names in _CATEGORIES.items() for name in names}
CATEGORY_ID = {name: NYU40.index(label) for name, label in CATEGORY_CLASS.items()}


class Top(NamedTuple):
    """A level surface on which things may stand, in the frame of its piece: metres."""

    x0: float
    y0: float
    x1: float
    y1: float
    z: float
    headroom_m: float = 1.0


class Piece(NamedTuple):
    """One annotated object, the surfaces that carry clutter, and pieces of other categories that are fixed to it."""

    name: str
    mesh: Solid
    tops: tuple[Top, ...] = ()
    joined: tuple["Piece", ...] = ()

    def all(self) -> tuple["Piece", ...]:
        """The piece and everything fixed to it, flat."""
        return (self._replace(joined=()), *(inner for piece in self.joined for inner in piece.all()))

    def bounds(self):
        """Lowest and highest corner of the piece with all that is fixed to it, (3,) float64 each."""
        return join(piece.mesh for piece in self.all()).bounds()

    def at(self, x: float, y: float, z: float, yaw_rad: float = 0.0) -> "Piece":
        """The piece and all that is fixed to it, turned about z and shifted; `tops` follow only shifts."""
        tops = tuple(Top(t.x0 + x, t.y0 + y, t.x1 + x, t.y1 + y, t.z + z, t.headroom_m) for t in self.tops)
        joined = tuple(piece.at(x, y, z, yaw_rad) for piece in self.joined)
        return Piece(self.name, place(self.mesh, (x, y, z), yaw_rad), tops, joined)
