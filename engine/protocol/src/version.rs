//! Version ordinals (`MQVersion`): what a peer may expect of the other.

/// The ordinal of V5_5_0, as the Java broker 5.5.0 sends it. This is what RingMQ sends: its answers are those of
/// that release, and a heartbeat answer below [`V4_1_0_SNAPSHOT`] would keep Java consumers from using SQL filters.
pub const CURRENT: i32 = 513;
/// First version with offset reset and consumer status from broker to client.
pub const V3_0_7_SNAPSHOT: i32 = 28;
/// First version with consumer-direct operations (running info, consume directly).
pub const V3_1_8_SNAPSHOT: i32 = 62;
/// First version whose `maxReconsumeTimes` counts.
pub const V3_4_9: i32 = 121;
/// First broker version that Java clients pull from with an SQL92 subscription.
pub const V4_1_0_SNAPSHOT: i32 = 232;
/// Last version that leaves `_UNIQUE_KEY_QUERY` out of an ACL signature.
pub const V4_9_3: i32 = 399;
/// First version that gets route data in standard JSON.
pub const V4_9_4: i32 = 401;
/// First version whose compressed registration ends with the static-topic section.
pub const V5_0_0: i32 = 413;
/// Last version that does not understand GO_AWAY.
pub const V5_3_1: i32 = 475;
