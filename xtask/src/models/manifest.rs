//! protocol/models/expectations.toml.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Problem;

/// All cases, in the order of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    #[serde(rename = "case")]
    pub(crate) cases: Vec<Case>,
}

/// A model, or a model with lines replaced, and what Verifpal must find in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The model, or...
    pub(crate) file: Option<String>,
    /// ...the case that this one changes.
    on: Option<String>,
    pub(crate) sessions: u32,
    /// What the attacker has besides the radio.
    assumes: Option<String>,
    /// The one defence that is taken away.
    pub(crate) without: Option<String>,
    /// The queries that must fail; all others must hold.
    #[serde(default)]
    pub(crate) fails: Vec<String>,
    /// Verifpal's search may end at a limit of its own before it is exhausted.
    #[serde(default)]
    pub(crate) truncated: bool,
    #[serde(default)]
    patch: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    find: String,
    replace: String,
    #[serde(default)]
    all: bool,
}

/// A case and the whole text of its model.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    pub(crate) case: &'a Case,
    pub(crate) model: String,
}

impl Manifest {
    /// Reads the manifest and checks that each case says what it is.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| Problem::Wrong(format!("expectations.toml: {error}")))?;
        for case in &manifest.cases {
            case.check().map_err(|what| Problem::Wrong(format!("expectations.toml: {}: {what}", case.name)))?;
        }
        Ok(manifest)
    }

    /// The text of every case.
    ///
    /// - `read`: gives the text of a model.
    pub(crate) fn texts(&self, read: impl Fn(&str) -> Result<String, Problem>) -> Result<Vec<Text<'_>>, Problem> {
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        let mut texts = Vec::new();
        for case in &self.cases {
            let fail = |what: &str| Problem::Wrong(format!("expectations.toml: {}: {what}", case.name));
            let mut model = match (&case.file, &case.on) {
                (Some(file), _) => read(file)?,
                (None, on) => on
                    .as_deref()
                    .and_then(|on| known.get(on))
                    .cloned()
                    .ok_or_else(|| fail("`on` names no case above it"))?,
            };
            for patch in &case.patch {
                model = patch.apply(&model).map_err(|what| fail(&what))?;
            }
            if known.insert(&case.name, model.clone()).is_some() {
                return Err(fail("is there twice"));
            }
            texts.push(Text { case, model });
        }
        Ok(texts)
    }
}

impl Case {
    fn check(&self) -> Result<(), &'static str> {
        match (&self.file, &self.on) {
            (Some(_), None) if self.patch.is_empty() && self.fails.is_empty() => Ok(()),
            (Some(_), None) => Err("a model itself has no patches, and all its queries hold"),
            (None, Some(_)) if self.patch.is_empty() => Err("changes nothing"),
            (None, Some(_)) if self.assumes.is_some() == self.without.is_some() => {
                Err("says either what the attacker has (`assumes`) or which defence is missing (`without`)")
            }
            (None, Some(_)) if self.without.is_some() && self.fails.is_empty() => {
                Err("takes a defence away, so a query must fail")
            }
            (None, Some(_)) => Ok(()),
            _ => Err("has either `file` or `on`"),
        }
    }
}

impl Patch {
    fn apply(&self, model: &str) -> Result<String, String> {
        match model.matches(self.find.as_str()).count() {
            0 => Err(format!("nothing to replace: {:?}", self.find)),
            1 => Ok(model.replace(self.find.as_str(), &self.replace)),
            _ if self.all => Ok(model.replace(self.find.as_str(), &self.replace)),
            count => Err(format!("{count} places to replace: {:?}", self.find)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[[case]]\nname = \"a\"\nfile = \"a.vp\"\nsessions = 2\n";

    fn parse(rest: &str) -> Result<Manifest, Problem> {
        Manifest::parse(&format!("{BASE}\n[[case]]\nsessions = 1\n{rest}"))
    }

    fn texts(rest: &str) -> Result<Vec<String>, String> {
        let manifest = parse(rest).map_err(|problem| problem.to_string())?;
        let texts = manifest.texts(|_| Ok("one two one".to_owned())).map_err(|problem| problem.to_string())?;
        Ok(texts.into_iter().map(|text| text.model).collect())
    }

    #[test]
    fn a_case_is_another_with_lines_replaced() {
        let patch = "[[case.patch]]\nfind = \"two\"\nreplace = \"three\"";
        let rest = format!("name = \"a/b\"\non = \"a\"\nwithout = \"two\"\nfails = [\"q\"]\n{patch}");
        assert_eq!(texts(&rest).unwrap(), ["one two one", "one three one"]);
    }

    #[test]
    fn a_patch_must_fit_exactly() {
        for (find, all, what) in [("four", "", "nothing"), ("one", "", "2 places"), ("four", "all = true", "nothing")] {
            let patch = format!("[[case.patch]]\nfind = \"{find}\"\nreplace = \"\"\n{all}");
            let rest = format!("name = \"b\"\non = \"a\"\nassumes = \"x\"\n{patch}");
            let error = texts(&rest).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let rest =
            "name = \"b\"\non = \"a\"\nassumes = \"x\"\n[[case.patch]]\nfind = \"one\"\nreplace = \"1\"\nall = true";
        assert_eq!(texts(rest).unwrap()[1], "1 two 1");
    }

    #[test]
    fn a_case_that_says_too_little_or_too_much_is_refused() {
        let patch = "[[case.patch]]\nfind = \"two\"\nreplace = \"\"";
        for rest in [
            "name = \"b\"".to_owned(),
            "name = \"b\"\non = \"a\"\nassumes = \"x\"".to_owned(),
            format!("name = \"b\"\non = \"a\"\n{patch}"),
            format!("name = \"b\"\non = \"a\"\nassumes = \"x\"\nwithout = \"y\"\nfails = [\"q\"]\n{patch}"),
            format!("name = \"b\"\non = \"a\"\nwithout = \"y\"\n{patch}"),
            format!("name = \"b\"\nfile = \"b.vp\"\non = \"a\"\nassumes = \"x\"\n{patch}"),
            format!("name = \"b\"\non = \"a\"\nassumes = \"x\"\nfail = [\"q\"]\n{patch}"),
            "name = \"b\"\nfile = \"b.vp\"\nfails = [\"q\"]".to_owned(),
        ] {
            assert!(parse(&rest).is_err(), "{rest}");
        }
        for rest in [
            format!("name = \"b\"\non = \"c\"\nassumes = \"x\"\n{patch}"),
            format!("name = \"a\"\non = \"a\"\nassumes = \"x\"\n{patch}"),
        ] {
            assert!(texts(&rest).is_err(), "{rest}");
        }
    }
}
