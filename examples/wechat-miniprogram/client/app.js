const config = require('./config');
const {createSocket} = require('./utils/socket');

// One socket for the whole mini-program: WeChat allows five at a time.
App({
  globalData: {socket: null},

  // connectTo leaves the present node, if any, and goes to another.
  connectTo(nodeId, handlers) {
    this.leave();
    this.globalData.socket = createSocket({
      url: `wss://${config.host}/ws/${encodeURIComponent(nodeId)}`,
      heartbeat: config.heartbeat,
      ...handlers
    });
  },

  leave() {
    if (this.globalData.socket) {
      this.globalData.socket.stop();
      this.globalData.socket = null;
    }
  },

  onLaunch() {
    wx.onNetworkStatusChange(({isConnected}) => {
      if (isConnected) this.wake();
    });
  },

  // In the background WeChat ends connections within seconds.
  onShow() {
    this.wake();
  },

  wake() {
    if (this.globalData.socket) this.globalData.socket.wake();
  }
});
