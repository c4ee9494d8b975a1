"""A terminal that remembers what it showed when, and draws it as an SVG that plays it."""

import re
from xml.sax.saxutils import escape

# What a program may ask for; anything else is a mistake of the program, or of this list.
SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")
COLOURS = {
    30: "#6e7681", 31: "#ff7b72", 32: "#56d364", 33: "#e3b341",
    34: "#79c0ff", 35: "#d2a8ff", 36: "#56d4dd", 37: "#e6edf3",
}  # fmt: skip
PLAIN = (None, False, False)
# Seconds; what is seen for less is not seen.
SHORTEST = 0.1


class Terminal:
    """What is on the screen, and what was: `frames` of (seconds, rows)."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.screen = [self._blank() for _ in range(rows)]
        self.row = self.column = 0
        self.style = PLAIN
        self.clock = 0.0
        self.frames = []
        self.rest = ""

    def _blank(self):
        return [(" ", PLAIN)] * self.columns

    def wait(self, seconds):
        """Time passes."""
        self.clock += seconds

    def show(self):
        """What is on the screen now is seen."""
        picture = tuple(tuple(row) for row in self.screen)
        if self.frames and self.frames[-1][1] == picture:
            return
        if self.frames and self.clock - self.frames[-1][0] < SHORTEST:
            self.frames[-1] = (self.frames[-1][0], picture)
        else:
            self.frames.append((self.clock, picture))

    def feed(self, text):
        """What a program prints."""
        text = self.rest + text
        self.rest = ""
        at = 0
        while at < len(text):
            c = text[at]
            if c == "\x1b":
                found = SEQUENCE.match(text, at)
                if not found:
                    if len(text) - at < 16:
                        self.rest = text[at:]
                        return
                    raise ValueError(f"not understood: {text[at:at + 16]!r}")
                self._obey(*found.groups())
                at = found.end()
                continue
            at += 1
            if c == "\n":
                self._down()
            elif c == "\r":
                self.column = 0
            elif c == "\t":
                self.column = min(self.columns - 1, self.column // 8 * 8 + 8)
            elif c < " ":
                raise ValueError(f"not understood: {c!r}")
            else:
                if self.column == self.columns:
                    self.column = 0
                    self._down()
                self.screen[self.row][self.column] = (c, self.style)
                self.column += 1

    def _down(self):
        self.row += 1
        if self.row == self.rows:
            self.screen = self.screen[1:] + [self._blank()]
            self.row -= 1

    def _obey(self, private, numbers, what):
        arguments = [int(number or 0) for number in numbers.split(";")]
        count = max(1, arguments[0])
        if private:
            if (what, arguments[0]) not in [("l", 25), ("h", 25)]:
                raise ValueError(f"not understood: ?{numbers}{what}")
        elif what == "A":
            self.row = max(0, self.row - count)
        elif what == "B":
            self.row = min(self.rows - 1, self.row + count)
        elif what == "C":
            self.column = min(self.columns - 1, self.column + count)
        elif what == "D":
            self.column = max(0, self.column - count)
        elif what == "G":
            self.column = count - 1
        elif what == "K":
            begin = 0 if arguments[0] in (1, 2) else self.column
            end = self.column + 1 if arguments[0] == 1 else self.columns
            row = self.screen[self.row]
            row[begin:end] = [(" ", PLAIN)] * (min(end, self.columns) - begin)
        elif what == "J":
            self.screen[self.row][self.column :] = [(" ", PLAIN)] * (self.columns - self.column)
            self.screen[self.row + 1 :] = [self._blank() for _ in range(self.row + 1, self.rows)]
        elif what == "m":
            for number in arguments:
                self._paint(number)
        else:
            raise ValueError(f"not understood: {numbers}{what}")

    def _paint(self, number):
        colour, bold, dim = self.style
        if number == 0:
            self.style = PLAIN
        elif number == 1:
            self.style = (colour, True, dim)
        elif number == 2:
            self.style = (colour, bold, True)
        elif number == 22:
            self.style = (colour, False, False)
        elif number == 39:
            self.style = (None, bold, dim)
        elif number in COLOURS:
            self.style = (COLOURS[number], bold, dim)
        elif number - 60 in COLOURS:
            self.style = (COLOURS[number - 60], bold, dim)
        else:
            raise ValueError(f"not a colour: {number}")


# Sizes in the picture's units, which are pixels where it is shown as wide as it is.
FONT, ADVANCE, LINE = 13.4, 8.1, 18
PADDING, BAR = 18, 34
INK, DIM, PAPER, FRAME = "#e6edf3", "#8b949e", "#0d1117", "#30363d"


def _text(row):
    """The SVG of a line: a text for each stretch of one style, each as wide as it has to be,
    whatever font there is."""
    out, at = [], 0
    while at < len(row):
        end = at
        while end < len(row) and row[end][1] == row[at][1]:
            end += 1
        text = "".join(c for c, _ in row[at:end])
        colour, bold, dim = row[at][1]
        begin = at + len(text) - len(text.lstrip())
        # What does not know `white-space` keeps these.
        text = text.strip().replace(" ", "\u00a0")
        if text:
            style = f' fill="{colour}"' if colour else f' fill="{DIM}"' if dim else ""
            style += ' font-weight="600"' if bold else ""
            out.append(
                f'<text x="{begin * ADVANCE:.1f}" textLength="{len(text) * ADVANCE:.1f}"'
                f' lengthAdjust="spacingAndGlyphs"{style}>{escape(text)}</text>'
            )
        at = end
    return "".join(out)


def svg(terminal, title, poster, hold):
    """Plays the frames for ever, with a pause of `hold` seconds at the end. Where nothing moves,
    the frame at `poster` seconds is seen."""
    inner = terminal.columns * ADVANCE
    width = inner + 2 * PADDING
    height = terminal.rows * LINE + BAR + PADDING
    total = terminal.clock + hold
    step = round(width)

    lines, uses = {}, []
    for number, (_, rows) in enumerate(terminal.frames):
        drawn = []
        for y, row in enumerate(rows):
            text = _text(row)
            if text:
                name = lines.setdefault(text, f"l{len(lines)}")
                drawn.append(f'<use href="#{name}" y="{y * LINE + FONT:.1f}"/>')
        uses.append(f'<g transform="translate({number * step} 0)">{"".join(drawn)}</g>')
    still = max(n for n, (at, _) in enumerate(terminal.frames) if at <= poster)
    keys = "".join(
        f"{100 * at / total:.3f}%{{transform:translateX({-number * step}px)}}"
        for number, (at, _) in enumerate(terminal.frames)
    )
    last = -(len(terminal.frames) - 1) * step
    defs = "".join(f'<g id="{name}">{text}</g>' for text, name in lines.items())
    dots = "".join(
        f'<circle cx="{PADDING + 3 + 18 * n}" cy="{BAR / 2}" r="5.5" fill="{colour}"/>'
        for n, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"])
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escape(title)}">
<style>
text{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:{FONT}px}}
@media (prefers-reduced-motion:no-preference){{.film{{animation:film {total:.2f}s step-end infinite}}}}
@keyframes film{{{keys}100%{{transform:translateX({last}px)}}}}
</style>
<defs>{defs}</defs>
<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="9" fill="{PAPER}" stroke="{FRAME}"/>
{dots}
<text x="{width / 2:.0f}" y="{BAR / 2 + 4.5}" text-anchor="middle" fill="{DIM}">{escape(title)}</text>
<svg x="{PADDING}" y="{BAR}" width="{inner:.0f}" height="{terminal.rows * LINE}"><g class="film" fill="{INK}" transform="translate({-still * step} 0)">{"".join(uses)}</g></svg>
</svg>
"""
