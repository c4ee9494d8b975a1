//! The manifest's JSON Schema, for editors. A manifest that it accepts may still be refused:
//! `check` knows more.

/// The schema of version 2.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::manifest::{Defaults, parse};

    /// Places in a manifest, as text around further keys (`{}`), and where the schema
    /// describes them.
    const PLACES: [(&str, &str); 18] = [
        ("version: 2\napps: []\n{}", ""),
        ("version: 2\napps: []\ndefaults: {{}}", "/properties/defaults"),
        (
            "version: 2\napps: []\nhosts: {a.example: {{}}}",
            "/properties/hosts/additionalProperties",
        ),
        (
            "version: 2\napps: []\nhosts: {a.example: {auth: {none: true, {}}}}",
            "/properties/hosts/additionalProperties/properties/auth/anyOf/1",
        ),
        (
            "version: 2\napps: []\nhosts: {a.example: {auth: {github_app: {{}}}}}",
            "/properties/hosts/additionalProperties/properties/auth/anyOf/1/properties/github_app",
        ),
        (
            "version: 2\napps: []\nhosts: {a.example: {auth: {ssh_agent: {{}}}}}",
            "/properties/hosts/additionalProperties/properties/auth/anyOf/1/properties/ssh_agent/anyOf/1",
        ),
        (
            "version: 2\napps: []\nhosts: {a.example: {proxy: 'http://p:1', proxy_auth: {{}}}}",
            "/properties/hosts/additionalProperties/properties/proxy_auth",
        ),
        ("version: 2\napps: []\npolicy: {{}}", "/properties/policy"),
        ("version: 2\napps: []\nlimits: {{}}", "/properties/limits"),
        ("version: 2\napps: []\nreport: {{}}", "/properties/report"),
        ("version: 2\napps: []\nreport: {log: {{}}}", "/properties/report/properties/log"),
        ("version: 2\napps: []\nreport: {metrics: {{}}}", "/properties/report/properties/metrics"),
        (
            "version: 2\napps: []\nreport: {notify: [{{}}]}",
            "/properties/report/properties/notify/items",
        ),
        (
            "version: 2\napps: []\nreport: {notify: [{webhook: {{}}}]}",
            "/properties/report/properties/notify/items/properties/webhook",
        ),
        ("version: 2\napps: [{{}}]", "/properties/apps/items"),
        ("version: 2\napps: [{when: {{}}}]", "/properties/apps/items/properties/when"),
        ("version: 2\napps: [{checks: [{{}}]}]", "/properties/apps/items/properties/checks/items"),
        ("version: 2\napps: [{verify: {{}}}]", "/properties/apps/items/properties/verify/anyOf/1"),
    ];

    #[test]
    fn the_schema_knows_the_keys_that_the_reader_knows() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        for (text, pointer) in PLACES {
            let text = text.replace("{}", "unheard_of: 1");
            let defaults = Defaults::new("/");
            let rejected = parse(text.as_bytes(), Path::new("m.yaml"), &defaults).expect_err(&text);
            let hint = rejected
                .problems
                .iter()
                .find(|problem| problem.message.contains("`unheard_of`"))
                .and_then(|problem| problem.hint.clone())
                .expect(&text);
            let known: BTreeSet<&str> = hint
                .trim_start_matches("known are ")
                .split(", ")
                .map(|key| key.trim_matches('`'))
                .collect();
            let object = schema.pointer(pointer).expect(pointer);
            let described: BTreeSet<&str> = object["properties"]
                .as_object()
                .expect(pointer)
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(described, known, "{pointer}");
            assert_eq!(object["additionalProperties"], false, "{pointer}");
        }
    }

    #[test]
    fn every_object_of_the_schema_is_compared() {
        fn objects(value: &Value) -> usize {
            let own = usize::from(value.get("properties").is_some_and(|inner| {
                inner.is_object() && value.get("type") == Some(&"object".into())
            }));
            let inner: usize = match value {
                Value::Object(map) => map.values().map(objects).sum(),
                Value::Array(list) => list.iter().map(objects).sum(),
                _ => 0,
            };
            own + inner
        }
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        // `when`, `checks` and its entries, and `verify` are described for apps and defaults.
        assert_eq!(objects(&schema), PLACES.len() + 3);
    }
}
