// Where the site is. A site: host 'im.example.gov', without a port: in request
// URLs WeChat accepts not even ":443".
module.exports = {
  host: 'localhost:11443',

  // The chat's own keep-alive. Networks drop silent connections after minutes, and
  // wx has no WebSocket ping. The node must answer with something within 2 × seconds.
  // seconds: 0 switches it off.
  heartbeat: {seconds: 30, data: 'ping'}
};
