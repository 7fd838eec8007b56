//! Like `outcomes`, with one signal per call.

use signalbus_guest::plugin;
use signalbus_test_guests::obey;

plugin!(obey);
