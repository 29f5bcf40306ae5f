//! What both kinds of messages tell about their properties.

/// Getters over the method `property`.
macro_rules! property_getters {
    () => {
        /// The tag.
        pub fn tag(&self) -> Option<&str> {
            self.property(names::TAGS)
        }

        /// The keys.
        pub fn keys(&self) -> impl Iterator<Item = &str> {
            ringmq_protocol::properties::keys(self.property(names::KEYS).unwrap_or_default())
        }
    };
}
pub(super) use property_getters;
