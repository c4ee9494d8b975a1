use super::*;

fn root(text: &str) -> Node {
    parse(text.as_bytes()).unwrap().root.unwrap()
}

#[test]
fn scalars_keep_their_text_and_place() {
    let node = root("version: 1.0\napps:\n  - release: 12345e6\n    name: 'x'\n");
    let release = node.get("apps").unwrap().items().unwrap()[0].get("release").unwrap();
    assert_eq!(release.text(), Some("12345e6"));
    assert_eq!(release.at, Position { line: 3, column: 14 });
    let name = node.get("apps").unwrap().items().unwrap()[0].get("name").unwrap();
    assert_eq!(name.value, Value::Scalar(Scalar { text: "x".into(), plain: false }));
}

#[test]
fn only_the_first_document_counts_and_the_second_is_named() {
    let doc = parse(b"a: 1\n---\nb: 2\n").unwrap();
    assert!(doc.root.unwrap().get("a").is_some());
    assert_eq!(doc.second, Some(Position { line: 2, column: 1 }));
    assert_eq!(parse(b"").unwrap().root, None);
    assert_eq!(parse(b"---\n").unwrap().root, None);
    assert_eq!(parse(b"# only a comment\n").unwrap().root, None);
}

#[test]
fn aliases_are_expanded_and_bombs_refused() {
    let node = root("a: &x [1, 2]\nb: *x\n");
    assert_eq!(node.get("b").unwrap().items().unwrap().len(), 2);
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..10 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        bomb += &format!("a{i}: &a{i} [{refs}]\n");
    }
    assert!(parse(bomb.as_bytes()).unwrap_err().message.contains("more than"));
    assert!(parse(b"a: &a [*a]").unwrap_err().message.contains("inside its own"));
    assert!(parse(b"a: *b").unwrap_err().message.contains("no anchor"));
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(parse(deep.as_bytes()).unwrap_err().message.contains("levels"));
}

#[test]
fn merge_keys_bring_what_the_mapping_does_not_have() {
    let node =
        root("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {<<: 5}\n");
    let merged = node.get("c").unwrap();
    let pairs: Vec<_> =
        merged.entries().unwrap().iter().map(|(k, v)| (k.text(), v.text())).collect();
    assert_eq!(
        pairs,
        [(Some("x"), Some("1")), (Some("y"), Some("1")), (Some("z"), Some("3"))],
        "each once, the mapping's own last"
    );
    assert!(node.get("d").unwrap().get("<<").is_some());
}

#[test]
fn a_block_scalar_may_end_with_the_text() {
    for (text, expected) in [
        ("a: |\n  x", "x"),
        ("a: |\n  x\n", "x\n"),
        ("a: |+\n  x\n\n", "x\n\n"),
        ("a: |-\n  x", "x"),
        ("a: >\n  x\n  y", "x y"),
        ("a: |\n  x\n  ", "x\n"),
        ("a: |", ""),
        ("a: \"x\"", "x"),
        ("a: x", "x"),
    ] {
        assert_eq!(root(text).get("a").unwrap().text(), Some(expected), "{text:?}");
    }
}

#[test]
fn encodings() {
    let text = "a: é😀\nb: ﬁ\n";
    let units: Vec<u16> = text.encode_utf16().collect();
    let little: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(units.iter().flat_map(|u| u.to_le_bytes())).collect();
    let big: Vec<u8> =
        [0xfe, 0xff].into_iter().chain(units.iter().flat_map(|u| u.to_be_bytes())).collect();
    let marked = [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
    let plain = parse(text.as_bytes()).unwrap();
    assert_eq!(plain.root.as_ref().unwrap().get("a").unwrap().text(), Some("é😀"));
    assert_eq!(parse(&little).unwrap(), plain);
    assert_eq!(parse(&big).unwrap(), plain);
    assert_eq!(parse(&marked).unwrap(), plain);
    // A first character whose first byte is that of a byte order mark.
    assert_eq!(root("ﬁ: x").get("ﬁ").unwrap().text(), Some("x"));
    for (bytes, expected) in [
        (&b"a: b\nc: \xff\n"[..], "2:4: the text is not valid UTF-8"),
        (b"a: \xe2\x82", "1:4: the text is not valid UTF-8"),
        (b"a: b\r\n\0", "2:1: the character U+0000 is not allowed in YAML"),
        (b"a: \x1b[31m", "1:4: the character U+001B is not allowed in YAML"),
        ("é\u{7f}".as_bytes(), "1:2: the character U+007F is not allowed in YAML"),
        (b"\xff\xfea\0b", "1:2: the text is not valid UTF-16: it ends inside a character"),
        (b"\xff\xfe\0\xd8a\0", "1:1: the text is not valid UTF-16"),
        (b"a\0b\0", "1:2: the character U+0000 is not allowed in YAML"),
    ] {
        assert_eq!(parse(bytes).unwrap_err().to_string(), expected);
    }
}

/// Needs `panic = "unwind"`, which is what every profile has.
#[test]
fn a_panic_of_the_scanner_is_an_error() {
    let e = parse(b"a: 1\nb: [!x, 1]\n").unwrap_err();
    assert_eq!((e.at.line, e.at.column), (2, 5));
    assert!(e.message.contains("a space before a comma"), "{e}");
    assert!(parse(b"b: [!x , 1]\n").is_ok());
}

#[test]
fn no_text_costs_more_than_its_size() {
    let many = |unit: &str| unit.repeat(MAX_BYTES / unit.len());
    let nested = |inside: &str| {
        (0..60).map(|i| format!("&a{i} [")).collect::<Vec<_>>().concat() + inside + &"]".repeat(60)
    };
    let directives = (0..1000).map(|i| format!("%TAG !{i}! x\n")).collect::<Vec<_>>().concat();
    let chain = (1..300)
        .map(|i| format!("- &a{i} {}*a{}{}\n", "[".repeat(40), i - 1, "]".repeat(40)))
        .collect::<Vec<_>>()
        .concat();
    for text in [
        many("["),
        many("- "),
        many("? "),
        many("{a: "),
        many("- &a a\n"),
        many("a: b\n"),
        nested(&many("a,")[..100_000]),
        nested(&"x".repeat(1_000_000)),
        format!("- &a {}\n{}", "x".repeat(1_000_000), "- *a\n".repeat(10_000)),
        directives,
        format!("- &a0 x\n{chain}"),
    ] {
        let start = std::time::Instant::now();
        assert!(parse(text.as_bytes()).is_err(), "{:?}", text.get(..20));
        // A hundred times what it takes: this is about squares, not about speed.
        assert!(start.elapsed().as_secs() < 10, "{:?}", text.get(..20));
    }
}

/// Every beginning of a file that has a bit of everything, and damaged copies of it.
#[test]
fn damaged_files_are_errors_and_not_panics() {
    const FILE: &str = "%YAML 1.1\n%TAG !e! tag:e,2000:\n--- # c\na: &x [1, 'it''s', \"\\u00e9\\x41\\\n  b\"]\n\
        ? {k: *x, <<: {l: ~}}\n: - |+1\n   x\n\n  - >-\n   y\n  - !e!t z\n  - !<v> {}\né: \"😀\"\n...\n---\nb\n";
    const PIECES: [&str; 16] = [
        "\n", "\t", "- ", ": ", "?", "[", "}", ",", "!", "&", "*", "|", "'", "\"", "\\", "\u{feff}",
    ];
    parse(FILE.as_bytes()).unwrap();
    for end in 0..FILE.len() {
        let _ = parse(&FILE.as_bytes()[..end]);
        for piece in PIECES {
            let damaged = [&FILE.as_bytes()[..end], piece.as_bytes(), &FILE.as_bytes()[end..]];
            let _ = parse(&damaged.concat());
        }
    }
}

#[test]
fn errors_have_a_place() {
    let e = parse(b"a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
    assert_eq!(e.at.line, 3);
    let e = parse(b"a: b: c\n").unwrap_err();
    assert_eq!((e.at.line, e.at.column), (1, 5));
}
