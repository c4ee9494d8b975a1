use super::*;

fn read(text: &str) -> Parsed {
    parse(Path::new("appspec.yml"), text.as_bytes())
}

fn valid(body: &str) -> AppSpec {
    let parsed = read(&format!("version: 0.0\nos: linux\n{body}"));
    parsed.spec.unwrap_or_else(|| panic!("{body}\n{:#?}", parsed.findings))
}

fn errors(text: &str) -> Vec<String> {
    let parsed = read(text);
    let errors: Vec<_> =
        parsed.findings.iter().filter(|f| f.is_error()).map(ToString::to_string).collect();
    assert_eq!(parsed.spec.is_none(), !errors.is_empty(), "{errors:?}");
    errors
}

#[test]
fn an_appspec_is_read_as_it_is_written() {
    let spec = valid(
        "files:\n  - source: /\n    destination: /srv/app\nhooks:\n  AfterInstall:\n    - location: ' s/a.sh '\n      runas: deploy\n      timeout: 30\n    - {location: b.sh, sudo: true}\npermissions:\n  - object: /srv/app\n    pattern: '*.sh'\n    except: [x.sh]\n    type: [file]\n    owner: www-data\n    group: 33\n    mode: 750\nfile_exists_behavior: RETAIN\n",
    );
    assert_eq!(spec.files[0].source, "/");
    let scripts = spec.scripts("AfterInstall");
    assert_eq!(scripts[0].location, "s/a.sh");
    assert_eq!(scripts[0].runas.as_deref(), Some("deploy"));
    assert_eq!(scripts[0].timeout, Duration::from_secs(30));
    assert_eq!(scripts[0].at, Position { line: 8, column: 17 });
    assert!(scripts[1].sudo && scripts[1].runas.is_none());
    assert_eq!(scripts[1].timeout, Duration::from_secs(3600));
    let permission = &spec.permissions[0];
    assert_eq!(permission.pattern.as_deref(), Some("*.sh"));
    assert!(permission.files && !permission.directories);
    assert_eq!(permission.owner, Some(Principal::Name("www-data".into())));
    assert_eq!(permission.group, Some(Principal::Id(33)));
    assert_eq!(permission.mode.as_ref().unwrap().bits, 0o750);
    assert_eq!(spec.file_exists, Some(FileExists::Retain));
    assert!(spec.scripts("ApplicationStart").is_empty());
}

#[test]
fn all_errors_are_found_at_once_with_their_places() {
    let found = errors(
        "version: 1\nos: Linux\nfiles:\n  - source: a\nhooks:\n  AfterInstall:\n    - runas: x\n    - location: a\n      timeout: 0\npermissions:\n  - object: /x\n    mode: 999\n    type: file\nfile_exists_behavior: overwrite\n",
    );
    let places: Vec<_> =
        found.iter().map(|e| e.splitn(4, ':').take(3).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(
        places,
        [
            "appspec.yml:1:10",
            "appspec.yml:2:5",
            "appspec.yml:4:5",
            "appspec.yml:7:7",
            "appspec.yml:9:16",
            "appspec.yml:12:11",
            "appspec.yml:13:11",
            "appspec.yml:14:23",
        ],
        "{found:#?}"
    );
}

#[test]
fn the_version_is_the_number_zero_for_either_tool() {
    for good in ["0.0", "0", "0.00", "-0.0", "0e0", "+0.0", "0x0"] {
        assert_eq!(errors(&format!("version: {good}\nos: linux\n")), [""; 0], "{good}");
    }
    for bad in ["'0.0'", "'0'", "0.1", "1", "~", "[0.0]", "v0", "\"0e0\""] {
        assert_eq!(errors(&format!("version: {bad}\nos: linux\n")).len(), 1, "{bad}");
    }
    assert_eq!(errors("os: linux\n").len(), 1);
    assert!(errors("version: 0.0\nos: windows\n")[0].contains("Linux host"));
}

#[test]
fn what_one_of_the_tools_accepts_is_accepted() {
    // Aliases, merge keys, dates, tags, several documents, line ends, duplicates.
    valid("x: &a {source: f, destination: /d}\nfiles:\n  - *a\n");
    let merged = valid("b: &b {source: f}\nfiles:\n  - <<: *b\n    destination: /d\n");
    assert_eq!(merged.files[0].source, "f");
    valid("built: 2026-01-02\nat: 2026-01-02 03:04:05\nt: !ruby/object:Object {}\nu: !mytag x\n");
    valid("---\nversion: 9\n");
    valid("version: 9\nversion: 0.0\r\n");
    let spec = valid("files:\n  - source: 2026-01-02\n    destination: /d\n");
    assert_eq!(spec.files[0].source, "2026-01-02");
    let spec = valid("permissions:\n  - {object: /d, pattern: 5, except: ~}\n");
    assert_eq!(spec.permissions[0].pattern.as_deref(), Some("5"));
    for empty in ["files:\n", "files: []\n", "hooks: ~\n", "hooks: {}\n", "permissions: false\n"] {
        valid(empty);
    }
    valid("hooks:\n  AfterInstall: ~\n  BeforeInstall: []\n");
}

#[test]
fn what_is_refused_by_both_is_refused() {
    for text in [
        "",
        "# nothing\n",
        "hello",
        "- a",
        "false",
        "null",
        "version: 0.0\nos: [linux\n",
        "version: 0.0\n\tos: linux\n",
        "\u{feff}version: 0.0\nos: linux\n",
    ] {
        assert!(!errors(text).is_empty(), "{text:?}");
    }
    for body in [
        "files:\n  - f\n",
        "files: {source: f, destination: /d}\n",
        "files: text\n",
        "files:\n  - {source: 5, destination: /d}\n",
        "files:\n  - {source: f, destination: 7}\n",
        "files:\n  - {Source: f, Destination: /d}\n",
        "hooks: [a]\n",
        "hooks: text\n",
        "hooks:\n  AfterInstall: {location: a}\n",
        "hooks:\n  AfterInstall: a.sh\n",
        "hooks:\n  AfterInstall: [a.sh]\n",
        "hooks:\n  AfterInstall:\n    - {location: ''}\n",
        "permissions: x\n",
        "permissions: [x]\n",
        "permissions:\n  - {object: ''}\n",
        "permissions:\n  - {object: /d, except: '*.txt'}\n",
        "permissions:\n  - {object: /d, type: file}\n",
        "permissions:\n  - {object: /d, type: [files]}\n",
        "permissions:\n  - {object: /d, owner: ''}\n",
        "permissions:\n  - {object: /d, acls: ['u::rw']}\n",
        "permissions:\n  - {object: /d, context: {name: x}}\n",
        "permissions:\n  - {object: /d, context: {type: t, range: x}}\n",
        "file_exists_behavior: ''\n",
        "file_exists_behavior: FOO\n",
    ] {
        assert!(!errors(&format!("version: 0.0\nos: linux\n{body}")).is_empty(), "{body}");
    }
}

#[test]
fn timeouts_are_converted_as_the_agent_does() {
    let timeout = |text: &str| {
        let parsed = read(&format!(
            "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: a\n      timeout: {text}\n"
        ));
        parsed.spec.map(|s| s.scripts("AfterInstall")[0].timeout.as_secs())
    };
    for (text, expected) in [
        ("'5'", Some(5)),
        ("5.9", Some(5)),
        ("0", None),
        ("-1", None),
        ("abc", None),
        ("~", Some(3600)),
        ("'5s'", Some(5)),
        ("10m", Some(10)),
        ("0.5", None),
        ("[5]", None),
        ("true", None),
        (".inf", None),
        ("1:30", Some(90)),
        ("99999999999999999999999", Some(100 * 366 * 86_400)),
    ] {
        assert_eq!(timeout(text), expected, "{text}");
    }
}

#[test]
fn octal_modes_are_read_as_written_with_a_warning() {
    let mode = |text: &str| {
        let body =
            format!("version: 0.0\nos: linux\npermissions:\n  - object: /d\n    mode: {text}\n");
        let parsed = read(&body);
        let mode = parsed.spec.and_then(|s| s.permissions[0].mode.clone());
        (mode.map(|m| m.text), parsed.findings.iter().any(|f| !f.is_error()))
    };
    for (text, expected, warned) in [
        ("0644", Some("0644"), true),
        ("0755", Some("0755"), true),
        ("0400", Some("0400"), true),
        ("02750", Some("2750"), true),
        ("755", Some("755"), false),
        ("'0755'", Some("0755"), false),
        ("5", Some("005"), false),
        ("0", Some("000"), false),
        ("''", Some("000"), false),
        ("~", None, false),
        ("0b111", Some("007"), false),
        ("6_4_4", Some("644"), false),
        ("'04755'", None, false),
        ("0o755", None, false),
        ("7.5", None, false),
    ] {
        assert_eq!(mode(text), (expected.map(str::to_owned), warned), "{text}");
    }
}

#[test]
fn misspelt_keys_are_warned_about_and_unknown_events_refused() {
    let parsed = read(
        "version: 0.0\nos: linux\nHooks: {}\nnonsense: 1\nfile_exists_behaviour: RETAIN\nfiles:\n  - {source: a, destination: /b, mode: 777}\n",
    );
    assert!(parsed.spec.is_some());
    let hints: Vec<_> = parsed.findings.iter().filter_map(|f| f.hint.clone()).collect();
    assert_eq!(
        hints,
        [
            "did you mean `hooks`?",
            "did you mean `file_exists_behavior`?",
            "known here: source, destination"
        ]
    );
    let spec = valid("hooks:\n  applicationstart: []\n  Install: []\n  MyEvent: []\n");
    let mut possible: Vec<String> = DEFAULT_EVENTS.iter().map(ToString::to_string).collect();
    possible.push("MyEvent".into());
    let unknown = spec.unknown_events(Path::new("appspec.yml"), &possible);
    assert_eq!(unknown.len(), 1);
    assert_eq!(
        unknown[0].to_string(),
        "appspec.yml:4:3: unknown lifecycle event `applicationstart`"
    );
    assert_eq!(unknown[0].hint.as_deref(), Some("did you mean `ApplicationStart`?"));
}

#[test]
fn broken_files_do_not_hide_the_hooks_of_an_installed_revision() {
    let parsed = read("version: 0.0\nos: windows\nhooks:\n  ApplicationStop:\n    - location: a\n");
    assert!(parsed.spec.is_none());
    assert_eq!(scripts(&parsed.hooks.unwrap(), "ApplicationStop")[0].location, "a");
}
