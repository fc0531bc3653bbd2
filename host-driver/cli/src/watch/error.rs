/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WatchError {
    #[error("no paired phone is called {0:?}")]
    NoSuchPhone(String),
    #[error("several phones fit {0:?}")]
    SeveralPhones(String),
}

impl WatchError {
    /// What to do next.
    pub(crate) fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::NoSuchPhone(_) => "`pocketcard phones` lists them",
            Self::SeveralPhones(_) => "name it by its id, which `pocketcard phones` shows",
        };
        Some(advice.to_owned())
    }
}
