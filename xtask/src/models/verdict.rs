//! What Verifpal found.

use std::collections::BTreeSet;

use serde::Deserialize;

/// What Verifpal found for one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) query: String,
    /// There is an attack.
    pub(crate) attacked: bool,
    /// If there is none: everything within the bound was searched.
    pub(crate) exhausted: bool,
}

#[derive(Deserialize)]
struct Report {
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    ok: bool,
    analysis: Option<Analysis>,
}

#[derive(Deserialize)]
struct Analysis {
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct Query {
    query: String,
    /// Verifpal's word for: an attack was found.
    resolved: bool,
    envelope: Option<Envelope>,
}

#[derive(Deserialize)]
struct Envelope {
    exhausted: bool,
}

impl Verdict {
    /// Reads the report of `verifpal verify --format json` on one model.
    ///
    /// # Errors
    /// In words, if it is no such report or the model could not be analysed.
    pub(crate) fn parse(json: &str) -> Result<Vec<Self>, String> {
        let report: Report = serde_json::from_str(json).map_err(|error| format!("no report of Verifpal: {error}"))?;
        let [Model { ok: true, analysis: Some(analysis) }] = report.models.as_slice() else {
            return Err("Verifpal could not analyse the model".to_owned());
        };
        if analysis.queries.is_empty() {
            return Err("the model asks nothing".to_owned());
        }
        let verdict = |query: &Query| Self {
            query: query.query.trim().to_owned(),
            attacked: query.resolved,
            exhausted: query.envelope.as_ref().is_some_and(|envelope| envelope.exhausted),
        };
        Ok(analysis.queries.iter().map(verdict).collect())
    }
}

/// Where findings and expectations differ, in words.
///
/// - `fails`: the queries that must be attacked; all others must hold.
/// - `truncated`: a search that was cut short counts as holding, too.
pub(crate) fn deviations(verdicts: &[Verdict], fails: &[String], truncated: bool) -> Vec<String> {
    let mut missing: BTreeSet<&str> = fails.iter().map(String::as_str).collect();
    let mut deviations = Vec::new();
    for Verdict { query, attacked, exhausted } in verdicts {
        match (missing.remove(query.as_str()), attacked) {
            (true, true) => {}
            (true, false) => deviations.push(format!("no attack found, but there must be one: {query}")),
            (false, true) => deviations.push(format!("an attack: {query}")),
            (false, false) if *exhausted || truncated => {}
            (false, false) => deviations.push(format!("holds, but the search was cut short: {query}")),
        }
    }
    deviations.extend(missing.iter().map(|query| format!("the model has no such query: {query}")));
    deviations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Verifpal 1.6.7 writes it, shortened.
    const REPORT: &str = r#"{"version":"1.6.7","ok":true,"models":[{"file":"a.vp","ok":true,"analysis":{"model":"a.vp",
        "attacker":"active","sessions":1,"code":"c1a0","attacks":1,"elapsedMs":1629,"assumptions":[],"queries":[
        {"query":"confidentiality? s_h","kind":"confidentiality","resolved":true,
         "envelope":{"sessions":1,"truncations":[],"exhausted":true},"summary":"..."},
        {"query":"authentication? Host -> Phone: t6","kind":"authentication","resolved":false,
         "envelope":{"sessions":1,"truncations":["term depth"],"exhausted":false}}]}}]}"#;

    fn verdicts() -> Vec<Verdict> {
        Verdict::parse(REPORT).unwrap()
    }

    #[test]
    fn a_report_is_read() {
        let [first, second] = verdicts().try_into().unwrap();
        assert_eq!(first, Verdict { query: "confidentiality? s_h".to_owned(), attacked: true, exhausted: true });
        assert_eq!(
            second,
            Verdict { query: "authentication? Host -> Phone: t6".to_owned(), attacked: false, exhausted: false }
        );
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        for text in [
            "",
            "{}",
            r#"{"models":[]}"#,
            r#"{"models":[{"ok":false,"error":"x"}]}"#,
            r#"{"models":[{"ok":true,"analysis":{"queries":[]}}]}"#,
            r#"{"models":[{"ok":true,"analysis":{"queries":[{"query":"q"}]}}]}"#,
        ] {
            assert!(Verdict::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_difference_is_named() {
        let fails = |queries: &[&str]| queries.iter().map(|&query| query.to_owned()).collect::<Vec<_>>();
        let expected = fails(&["confidentiality? s_h"]);
        assert!(deviations(&verdicts(), &expected, true).is_empty());
        assert_eq!(deviations(&verdicts(), &expected, false).len(), 1, "cut short");
        assert_eq!(deviations(&verdicts(), &[], true), ["an attack: confidentiality? s_h"]);
        let both = fails(&["confidentiality? s_h", "authentication? Host -> Phone: t6"]);
        let found = deviations(&verdicts(), &both, true);
        assert_eq!(found, ["no attack found, but there must be one: authentication? Host -> Phone: t6"]);
        let other = fails(&["confidentiality? s_h", "confidentiality? s_x"]);
        assert_eq!(deviations(&verdicts(), &other, true), ["the model has no such query: confidentiality? s_x"]);
    }
}
