//! What the program is made of: crates of one registry, by their checksums, under licences that
//! let it be given away. The lists are those of `.deny.toml`, which `cargo deny` reads.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The texts of a list of `.deny.toml`.
fn list(name: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deny.toml");
    let text = std::fs::read_to_string(file).expect("the lists");
    let begin = text.find(&format!("\n{name} = [")).expect("the list");
    let list = text[begin..].split_once('[').expect("its beginning").1;
    let list = list.split_once(']').expect("its end").0;
    let texts = list.split(',').map(|entry| entry.trim().trim_matches('"').to_owned());
    texts.filter(|text| !text.is_empty()).collect()
}

/// All that is built for Linux, tests and tools of the build included.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list").clone();
    assert!(packages.len() > 100, "there is something to look at");
    packages
}

/// Whether an expression of SPDX, or what was written before there was one, holds with these.
fn allowed(expression: &str, licences: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // `AND` does not bind stronger where there are parentheses: then all of it is asked for.
    let holds = |part: &str| {
        let part = part.split_whitespace().collect::<Vec<_>>().join(" ");
        licences.contains(&part)
    };
    expression.split(" AND ").all(|all| all.split(" OR ").any(holds))
}

#[test]
fn every_crate_has_a_licence_that_is_listed() {
    let licences = list("allow");
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        match package["license"].as_str() {
            Some(licence) => assert!(allowed(licence, &licences), "{name}: {licence}"),
            // Clarified in the file.
            None => assert_eq!(name, "libyaml-safer", "{name} has no licence"),
        }
    }
    assert!(!allowed("GPL-3.0", &licences) && !allowed("MIT AND GPL-3.0", &licences));
    assert!(allowed("GPL-3.0 OR MIT", &licences) && !allowed("MIT-0", &licences));
}

#[test]
fn every_crate_comes_from_the_registry_and_has_a_checksum() {
    let registries = list("allow-registry");
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        match package["source"].as_str().and_then(|source| source.strip_prefix("registry+")) {
            Some(registry) => assert!(registries.iter().any(|known| known == registry), "{name}"),
            None => assert_eq!(name, env!("CARGO_PKG_NAME"), "{}", package["source"]),
        }
    }
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("the lock file");
    let entries: Vec<&str> = lock.split("[[package]]").skip(1).collect();
    let sums = entries.iter().filter(|entry| entry.contains("\nchecksum = \"")).count();
    assert_eq!(sums, entries.len() - 1, "all but the program itself");
}
