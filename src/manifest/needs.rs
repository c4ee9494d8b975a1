//! Who needs whom: names that exist, and no circles.

use std::collections::HashMap;

use super::fields::{Findings, did_you_mean};
use crate::diagnostic::quoted;
use crate::domain::{App, AppName};
use crate::yaml::Position;

/// What one app of the file says it needs.
pub(super) struct Wish<'n> {
    /// The app.
    pub(super) app: AppName,
    /// Whether it is to be deployed at all.
    pub(super) enabled: bool,
    /// The names as they are written.
    pub(super) needs: Vec<(&'n str, Position)>,
}

/// Checks what the apps need and enters it into those that are good.
pub(super) fn resolve(wishes: &[Wish<'_>], apps: &mut [App], findings: &mut Findings) {
    let places: HashMap<&str, usize> =
        wishes.iter().enumerate().rev().map(|(place, wish)| (wish.app.as_str(), place)).collect();
    let mut graph: Vec<Vec<(usize, Position)>> = Vec::new();
    for wish in wishes {
        findings.app = Some(wish.app.to_string());
        let mut edges: Vec<(usize, Position)> = Vec::new();
        for &(name, at) in &wish.needs {
            match places.get(name) {
                Some(&place) if edges.iter().any(|(known, _)| *known == place) => {
                    findings.warning(Some(at), format!("`needs` names {} twice", quoted(name)));
                }
                Some(&place) => {
                    if wish.enabled && wishes.get(place).is_some_and(|other| !other.enabled) {
                        let message = format!(
                            "`needs` names {}, which is `enabled: false`: it is not waited for",
                            quoted(name)
                        );
                        findings.warning(Some(at), message);
                    }
                    edges.push((place, at));
                }
                None => {
                    let message = format!("`needs` names {}, which is no app here", quoted(name));
                    findings.error(Some(at), message).hint =
                        did_you_mean(name, places.keys().copied());
                }
            }
        }
        graph.push(edges);
    }
    for circle in circles(&graph) {
        let name = |place: usize| wishes.get(place).map_or("?", |wish| wish.app.as_str());
        let Some(&(first, at)) = circle.first() else { continue };
        findings.app = Some(name(first).to_owned());
        let mut way: Vec<&str> = circle.iter().map(|(place, _)| name(*place)).collect();
        way.push(name(first));
        let message = format!("apps need each other in a circle: {}", way.join(" -> "));
        findings.error(Some(at), message).hint = Some("take one of these `needs` away".into());
    }
    findings.app = None;
    for app in apps {
        let edges = places.get(app.name.as_str()).and_then(|place| graph.get(*place));
        let needs = edges.into_iter().flatten().filter_map(|(place, _)| wishes.get(*place));
        app.needs = needs.map(|wish| wish.app.clone()).collect();
    }
}

/// One circle for each that a walk along the edges runs into: its places in order, each with
/// where it names the next.
fn circles(graph: &[Vec<(usize, Position)>]) -> Vec<Vec<(usize, Position)>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; graph.len()];
    let mut found = Vec::new();
    for start in 0..graph.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // Not recursive: how long a chain is, is the file's choice. A place, and which of its
        // edges is next.
        let mut path = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((place, next)) = path.last_mut() {
            let Some(&(to, _)) = graph[*place].get(*next) else {
                marks[*place] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[to] {
                Mark::Done => {}
                Mark::New => {
                    marks[to] = Mark::Open;
                    path.push((to, 0));
                }
                Mark::Open => {
                    let circle = path.iter().skip_while(|(place, _)| *place != to);
                    let edge = |(place, next): &(usize, usize)| (*place, graph[*place][next - 1].1);
                    found.push(circle.map(edge).collect());
                }
            }
        }
    }
    found
}
