//! Who speaks: language codes and version ordinals.

/// The language of a peer, by Java's `LanguageCode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Language {
    /// Java.
    #[default]
    Java = 0,
    /// C++.
    Cpp = 1,
    /// .NET.
    Dotnet = 2,
    /// Python.
    Python = 3,
    /// Delphi.
    Delphi = 4,
    /// Erlang.
    Erlang = 5,
    /// Ruby.
    Ruby = 6,
    /// Any other; also what an unknown name or ordinal reads as.
    Other = 7,
    /// A plain HTTP client.
    Http = 8,
    /// Go.
    Go = 9,
    /// PHP.
    Php = 10,
    /// OpenMessaging.
    Oms = 11,
    /// Rust.
    Rust = 12,
    /// Node.js.
    NodeJs = 13,
}

/// Every language in the order of its ordinal, with its name on the wire.
const LANGUAGES: [(Language, &str); 14] = [
    (Language::Java, "JAVA"),
    (Language::Cpp, "CPP"),
    (Language::Dotnet, "DOTNET"),
    (Language::Python, "PYTHON"),
    (Language::Delphi, "DELPHI"),
    (Language::Erlang, "ERLANG"),
    (Language::Ruby, "RUBY"),
    (Language::Other, "OTHER"),
    (Language::Http, "HTTP"),
    (Language::Go, "GO"),
    (Language::Php, "PHP"),
    (Language::Oms, "OMS"),
    (Language::Rust, "RUST"),
    (Language::NodeJs, "NODE_JS"),
];

impl Language {
    /// From the name in a JSON header; an unknown name is [`Language::Other`].
    pub fn from_name(name: &str) -> Language {
        LANGUAGES.iter().find(|(_, n)| *n == name).map_or(Language::Other, |(l, _)| *l)
    }

    /// From the ordinal in a binary header; an unknown one is [`Language::Other`].
    pub fn from_ordinal(ordinal: u8) -> Language {
        LANGUAGES.get(usize::from(ordinal)).map_or(Language::Other, |(l, _)| *l)
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        LANGUAGES[self as usize].1
    }

    /// The ordinal on the wire.
    pub fn ordinal(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ordinals_go_both_ways() {
        for (i, (language, name)) in LANGUAGES.iter().enumerate() {
            assert_eq!(usize::from(language.ordinal()), i);
            assert_eq!(language.name(), *name);
            assert_eq!(Language::from_name(name), *language);
            assert_eq!(Language::from_ordinal(i as u8), *language);
        }
        assert_eq!(Language::from_name("COBOL"), Language::Other);
        assert_eq!(Language::from_ordinal(200), Language::Other);
    }
}
