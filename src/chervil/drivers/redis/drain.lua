-- The same as exchange.lua, also on a server that is out of memory: after one write that
-- needs none, a script may do all. For what it takes up here, messages go.
redis.call('HDEL', ARGV[1] .. '_chervil.consumers', '')
-- include exchange.lua
