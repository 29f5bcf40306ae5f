//! What both kinds of messages tell about their properties.

/// Getters over the field `properties`.
macro_rules! property_getters {
    () => {
        /// The tag.
        pub fn tag(&self) -> Option<&str> {
            self.property(names::TAGS)
        }

        /// The keys.
        pub fn keys(&self) -> impl Iterator<Item = &str> {
            properties::keys(self.property(names::KEYS).unwrap_or_default())
        }

        /// A property, one of the system's or of the application.
        pub fn property(&self, name: &str) -> Option<&str> {
            self.properties.get(name).map(String::as_str)
        }

        /// Every property, by name.
        pub fn properties(&self) -> &BTreeMap<String, String> {
            &self.properties
        }

        /// Sets a property of the system's; the caller knows that it is legal.
        pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
            self.properties.insert(name.to_owned(), value.into());
        }
    };
}
pub(super) use property_getters;
