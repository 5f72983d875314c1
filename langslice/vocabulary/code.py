"""Tokens of source code: indentation, operators, keywords, common identifiers.

Evidence for `--keep-code`. The words are the languages' own reserved words and Python's builtins, which the running
interpreter lists; counts from a corpus of code say more where there is one.
"""

from __future__ import annotations

import builtins
import itertools
import keyword
from typing import Any, Final

import numpy as np

from langslice.tokenizer import SourceTokenizer

# Between white space; split where they are used.
OPERATORS: Final = r"""
+ - * / % = < > ! & | ^ ~ ? : ; , . ( ) [ ] { } @ # $ \ ` ' " == != <= >= += -= *= /= //= %= &= |= ^= << >> <<= >>=
** // -> => := :: ++ -- && || ?? ?. ... .. <- <> === !== /* */ /// #! <!-- --> </ /> () [] {} (); ); }); }; }, ], ), ):
]: }: [' '] [" "] (' ') (" ") {{ }} ${ #{ \n \t \" ``` ~~~ <<< >>> __ _
"""

# Reserved words and everyday names; what Python itself lists is added below.
RESERVED: Final = {
    "C and C++": (
        "auto bool char class const constexpr default define delete do double endif enum extern float for goto ifdef "
        "ifndef include inline int long main namespace new nullptr operator private protected public register return "
        "short signed sizeof static std string struct switch template this throw typedef typename union unsigned "
        "using vector virtual void volatile uint8_t uint32_t int64_t size_t NULL printf malloc free"
    ),
    "JavaScript and TypeScript": (
        "async await catch console const constructor debugger document export extends function instanceof interface "
        "let log module null prototype readonly require super this type typeof undefined var window yield JSON "
        "Promise Array Object String Number boolean number any props state useState useEffect React"
    ),
    "Go": "append chan defer error fallthrough fmt func go interface make map nil package Println range select string",
    "Rust": (
        "Box Err None Ok Option Result Some String Vec as crate dyn enum fn impl let loop match mod move mut pub ref "
        "self static struct trait unsafe use usize where i32 i64 u8 u32 u64 f32 f64 println unwrap"
    ),
    "Java": (
        "abstract boolean extends final finally implements import instanceof native package private protected public "
        "static super synchronized throws transient void ArrayList HashMap Integer List Override String System"
    ),
    "SQL": (
        "ALTER AND AS ASC BETWEEN BY CASE COUNT CREATE DELETE DESC DISTINCT DROP EXISTS FROM GROUP HAVING IN INDEX "
        "INNER INSERT INTO IS JOIN KEY LEFT LIKE LIMIT NOT NULL ON OR ORDER OUTER PRIMARY SELECT SET SUM TABLE UNION "
        "UPDATE VALUES VARCHAR WHERE"
    ),
    "names": (
        "add args array attr base body buf buffer cache callback cfg child client cls code column config context "
        "count create ctx current data date db default depth dict dir element end entry env err error event example f "
        "field file filename flag format foo func get group handler hash head height i id idx img index info init "
        "input instance item items j json k key kwargs label lang last left len length level line lines list load "
        "lock lst main map mask max message method min mode model module msg name new next node np num number obj "
        "object offset option options out output params parent parse path pattern pd pos prefix prev print process "
        "query queue read request res response result results return right root row run save self send session set "
        "setup size source src start state status step str stream string sum table tag target task temp test text "
        "time timestamp tmp token total tree true type update url user utils val value values var version view width "
        "write x y z"
    ),
    "markup": (
        "html head body div span class style href src img link script table tr td th ul li form input button label "
        "title meta http https www com org px em rem color margin padding border width height true false null yaml "
        "json xml bash sh python javascript java cpp rust sql"
    ),
}


def code_texts() -> list[str]:
    """Texts that hold the everyday pieces of source code in the places where they are."""
    words = sorted({*itertools.chain.from_iterable(text.split() for text in RESERVED.values())} | _python_words())
    texts = [f"\n{character * width}x" for character in " \t" for width in range(1, 65)]
    texts += ["\n" * count + "x" for count in range(1, 9)] + [f"\n\n{' ' * width}x" for width in range(4, 33, 4)]
    operators = OPERATORS.split()
    texts += [f"x {operator} y" for operator in operators] + [f"x{operator}y" for operator in operators]
    texts += [f"x){operator}\n    y" for operator in operators]
    for word in words:
        title = word[:1].upper() + word[1:]
        texts.append(
            f"{word} {word}\n{word}({word}.{word}, {word}_{word})[{word}] = {{{word}: '{word}'}};\n"
            f'"{word}" <{word}> </{word}> @{word} #{word} ${word} _{word} __{word}__ *{word} &{word} !{word}'
            f" -{word} --{word} /{word} {title} get{title} .{title}({title}) {title}_ {word.upper()} _{word.upper()}"
        )
    fences = ("", "python", "js", "javascript", "ts", "bash", "sh", "json", "yaml", "html", "css", "sql", "c", "cpp")
    texts += [f"\n```{fence}\ncode\n```\n" for fence in fences]
    texts += [str(number) for number in range(1001)] + [f"0x{number:02x}" for number in range(256)]
    return texts


def weigh_code(tokenizer: SourceTokenizer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Occurrences of each token in the pieces of source code: (size,) float64."""
    counts = np.zeros(len(tokenizer.tokens), dtype=np.float64)
    for ids in tokenizer.encode(code_texts()):
        np.add.at(counts, ids, 1.0)
    return counts


def _python_words() -> set[str]:
    names = {name for name in dir(builtins) if not name.startswith("_")}
    methods = {name for kind in (str, list, dict, set, bytes, int, float) for name in dir(kind)}
    return {*keyword.kwlist, *names, *(method.strip("_") for method in methods)}
